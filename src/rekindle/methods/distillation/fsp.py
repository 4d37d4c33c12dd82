"""Keep the flow between layers: squared distance of Gram matrices of a stage's input and output.

Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation, CVPR 2017, equations 1 and 2: G_ij = 1/(HW) * sum over positions of
A_i * B_j, loss = mean over the batch of the sum over pairs of ||G_t - G_s||_F^2. The paper trains on this loss alone first, so it
has no weight for the sum with the task's. Ours is 1, for matrices brought to length 1 (as attention transfer does with its maps),
since their size differs between networks by orders of magnitude and grows with the square of activations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rekindle.hooks import INPUT
from rekindle.method import Batch, Method, Net, Source
from rekindle.methods._math import safe_divide
from rekindle.methods.distillation._layers import Layers, find_layers, paired_maps, pooled
from rekindle.spec import NonNegative


@dataclass
class FSP(Method):
    """Keep the relation between each stage's input and output as it is in the source (flow of solution procedure).

    Args:
        strength: At least 0.
        normalize: Bring each sample's matrix to length 1; False is as published.
        layers: "stages" for every stage, or a name or names of layers; each gives the pair of its input and its output. Where
            they differ in size, the larger is averaged down.

    Raises:
        ValueError: For an argument out of range or an unknown layer.
    """

    strength: NonNegative = 1.0
    normalize: bool = True
    layers: Layers = "stages"

    paper: ClassVar[str] = "Yim, Joo, Bae, Kim, CVPR 2017"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_source = self.strength > 0

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers, input and output of each."""
        if self.uses_source:
            self._net = net
            names = find_layers(net, source, self.layers, self.name)
            self.hook_layers = self.source_hook_layers = tuple(layer for name in names for layer in (f"{name}{INPUT}", name))

    def penalty(self, batch: Batch) -> Tensor | None:
        """strength * mean over the batch of the squared distances of the matrices."""
        if not self.uses_source:
            return None
        # Inside autocast the product would be taken in half precision.
        with torch.autocast(batch.outputs.device.type, enabled=False):
            distances = [(mine - theirs).square().sum((1, 2)).mean() for mine, theirs in self._matrices(batch)]
        return self.strength * torch.stack(distances).sum()

    def _matrices(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        found = list(paired_maps(batch, self.hook_layers, self._net, self.name))
        for before, after in zip(found[::2], found[1::2], strict=True):
            pair = [flow(a, b) for a, b in zip(before, after, strict=True)]
            yield (unit(pair[0]), unit(pair[1])) if self.normalize else (pair[0], pair[1])


def flow(a: Tensor, b: Tensor) -> Tensor:
    """(B, C, *S) and (B, D, *T) to (B, C, D): inner products of channels over positions, divided by their number.

    Returns:
        (B, C, D) with its graph.
    """
    first, second = pooled(a, b)
    return first @ second.transpose(1, 2) / first.shape[2]


def unit(matrices: Tensor) -> Tensor:
    """(B, C, D) matrices at Frobenius length 1; those of zeros stay.

    Returns:
        (B, C, D) with its graph.

    Examples:
        >>> import torch
        >>> float(unit(torch.full((1, 2, 2), 3.0)).norm())
        1.0
    """
    return safe_divide(matrices, torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True))
