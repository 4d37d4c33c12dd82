"""Methods and directions of other packages: whatever they declare as an entry point of the group `rekindle.methods`.

In the other package's pyproject.toml::

    [project.entry-points."rekindle.methods"]
    early_strong = "their_package.early_strong:EarlyStrong"
"""

import dataclasses
import inspect
import typing
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rekindle import spec
from rekindle.errors import first_line
from rekindle.method import Direction, Method
from rekindle.methods._catalog import GROUP, MethodEntry, Option


@dataclass(frozen=True)
class Plugins:
    """What other packages bring.

    Attributes:
        kinds: Classes by name.
        entries: What is said of each.
        broken: Sentences on those that cannot be used, by the name of their entry point.
    """

    kinds: dict[str, type[Method] | type[Direction]]
    entries: dict[str, MethodEntry]
    broken: dict[str, str]


@cache
def plugins(taken: frozenset[str]) -> Plugins:
    """Load them all; one that fails is named and passed over.

    Args:
        taken: The library's own names, which no other package may take.
    """
    found = Plugins({}, {}, {})
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist is not None else point.module
        try:
            kind = _load(point, {*taken, *found.kinds})
        except Exception as error:  # noqa: BLE001  Other people's code may raise anything while it is imported.
            found.broken[point.name] = f"{point.name} of {package} cannot be used: {first_line(error)}"
            continue
        found.kinds[kind.name] = kind
        found.entries[kind.name] = _entry(kind, package)
    return found


def _load(point: EntryPoint, taken: Collection[str]) -> type[Method] | type[Direction]:
    kind = point.load()
    if not (isinstance(kind, type) and issubclass(kind, Method | Direction)):
        raise TypeError(f"{point.value} is no subclass of rekindle.Method or rekindle.Direction")
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{point.value} is no dataclass; write @dataclass above it")
    if kind.name in taken:
        raise ValueError(f"another method is called {kind.name} already; give the class another `name`")
    return kind


def _entry(kind: type[Method] | type[Direction], package: str) -> MethodEntry:
    defaults = {field.name: field.default for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    options = {name: Option(defaults[name], spec.wanted(hint)) for name, hint in spec.hints(typing.cast("Any", kind)).items()}
    return MethodEntry(kind.name, kind.__name__, kind.__module__, package, kind.paper, inspect.getdoc(kind) or "", options, package)
