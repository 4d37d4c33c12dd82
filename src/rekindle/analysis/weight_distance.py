"""How far each layer has moved from its pre-trained weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rekindle.analysis.recorders import Recorder
from rekindle.method import Net, Source, require


def weight_distance(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Distance of each layer's parameters from where they began, in float64.

    Args:
        weights: Tensors by name, "layer1.0.conv1.weight"; those of one layer are taken together.
        start: Tensors of the same names and shapes; it may hold more.

    Returns:
        {layer: {"distance": Euclidean, "norm": that of the start}}, in the order of `weights`.
    """
    squares: dict[str, list[float]] = {}
    for name, weight in weights.items():
        before = start[name].detach().double().cpu()
        sums = squares.setdefault(name.rpartition(".")[0], [0.0, 0.0])
        sums[0] += float((weight.detach().double().cpu() - before).square().sum())
        sums[1] += float(before.square().sum())
    return {layer: {"distance": moved**0.5, "norm": size**0.5} for layer, (moved, size) in squares.items()}


def relative(layers: Mapping[str, Mapping[str, float]]) -> float:
    """Distance of all layers together, as a share of the norm of where they began.

    Returns:
        A share, 0 or more.
    """
    moved, size = (sum(layer[key] ** 2 for layer in layers.values()) ** 0.5 for key in ("distance", "norm"))
    return moved / size if size else float(moved > 0)


class WeightDistance(Recorder):
    """`weight_distance` of every parameter that the source has too, at the end of each epoch."""

    def __init__(self, net: Net, source: Source) -> None:
        self._weights = net.shared()
        require(
            bool(self._weights), "--record weight_distance: no weight of the network is pre-trained, so there is nothing to travel from."
        )
        self._start = {name: source.tensors[net.source_names[name]] for name in self._weights}

    def epoch(self) -> dict[str, Any]:
        """{layer: {"distance", "norm"}}."""
        return weight_distance(self._weights, self._start)
