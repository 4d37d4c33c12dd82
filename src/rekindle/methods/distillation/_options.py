"""What options of the methods here have in common."""

from rekindle.method import require

REDUCTIONS = ("relative", "batchmean", "sum")


def check_layers(owner: str, layers: str | tuple[str, ...]) -> None:
    """Refuse what is neither a name nor a tuple of different names."""
    names = (layers,) if isinstance(layers, str) else layers
    ok = isinstance(names, tuple) and bool(names) and all(isinstance(name, str) and name for name in names)
    require(ok, f'{owner}: layers must be "stages", the name of a layer, or a tuple of names, found {layers!r}.')
    require(len(set(names)) == len(names), f"{owner}: layers must name each layer once, found {layers!r}.")
