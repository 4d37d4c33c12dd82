"""Naming the parts of a network and letting methods change them."""

from collections.abc import Sequence

from torch import nn

from rekindle.method import Method, Net, Source, require
from rekindle.models import find_classifier, source_classifier, stages


def operate(
    model: nn.Module, methods: Sequence[Method], source: Source, head: str | Sequence[str] | None, source_names: dict[str, str] | None = None,
    seed: int = 0,
) -> Net:  # fmt: skip
    """Let methods change a network's modules, and name its parts; what `Tuner` does first, and whoever rebuilds a trained network.

    Args:
        model: Changed in place.
        methods: In order.
        source: The pre-trained network.
        head: Names of the new classifier's layers; None finds them.
        source_names: {parameter name: name in the source}; None matches by equal name and shape outside the head.
        seed: Key of draws.

    Returns:
        The network's parts by name: head, stages, and what the source calls each parameter.
    """
    names = (head,) if isinstance(head, str) else tuple(find_classifier(model) if head is None else head)
    require(len(names) > 0, "head must name at least one module.")
    matched = _match_names(model, source, names) if source_names is None else dict(source_names)
    net = Net(model, names, matched, stages(model, list(names)), source_classifier(source.model, names), seed)
    for method in methods:
        method.surgery(net, source)
    return net


def _match_names(model: nn.Module, source: Source, head: tuple[str, ...]) -> dict[str, str]:
    """Equal names and shapes outside the head, which is new also where it has as many classes as the source's."""
    inside = tuple(f"{name}." for name in head)
    shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
    matched = {name: name for name, p in model.named_parameters() if shapes.get(name) == p.shape}
    return {name: name for name in matched if not name.startswith(inside)}
