"""Names of networks, written down once for the timm and torchvision that are installed: asking the two takes seconds."""

import fnmatch
import json
from contextlib import suppress
from importlib.metadata import version

from rekindle.data.cache.cache_dir import home
from rekindle.files import write_json

LIBRARIES = ("rekindle", "timm", "torchvision")


def network_names(pattern: str = "*") -> list[str]:
    """Names of networks that match a shell pattern, ours first, as `rekindle.models.names` gives them."""
    path = home() / f"networks-{'-'.join(version(name) for name in LIBRARIES)}.json"
    try:
        known: list[str] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        from rekindle import models

        known = models.names()
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
    return fnmatch.filter(known, pattern)
