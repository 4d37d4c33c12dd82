"""Every method and direction, a file each, importable from here by its class's name: `from rekindle.methods import DELTA, LwF`.

A new one is there by being there. A file whose name begins with "_" holds what several of them share.
"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    from rekindle.methods._catalog import library

    homes = {entry.kind: entry.module for entry in library().values()} if not name.startswith("_") else {}
    if name not in homes:
        raise AttributeError(f"module 'rekindle.methods' has no attribute {name!r}")
    return getattr(importlib.import_module(homes[name]), name)


def __dir__() -> list[str]:
    from rekindle.methods._catalog import library

    return sorted(entry.kind for entry in library().values())
