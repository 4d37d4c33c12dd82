"""Names of networks, written down once for the timm and torchvision that are installed: asking the two takes seconds."""

import fnmatch
from importlib.metadata import version

from typing_extensions import TypedDict

from rekindle.data.cache.cache_dir import home
from rekindle.stored import FileFormat

LIBRARIES = ("rekindle", "timm", "torchvision")


class Networks(TypedDict):
    """What the libraries were asked."""

    names: list[str]


NETWORKS = FileFormat(1, Networks, "it is written again")


def network_names(pattern: str = "*") -> list[str]:
    """Names of networks that match a shell pattern, ours first, as `rekindle.models.names` gives them.

    Returns:
        Names.
    """
    path = home() / f"networks-{'-'.join(version(name) for name in LIBRARIES)}.json"
    return fnmatch.filter(NETWORKS.kept(path, _asked)["names"], pattern)


def _asked() -> Networks:
    from rekindle import models

    return {"names": models.names()}
