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
from rekindle.methods._math import nonzero
from rekindle.methods.distillation._layers import Layers, find_layers, paired_maps, pooled
from rekindle.spec import NonNegative

Maps = tuple[Tensor, Tensor]


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
            apart = apart_at_length_1 if self.normalize else squared_distance
            distances = [apart(mine, theirs).mean() for mine, theirs in self._flows(batch)]
        return self.strength * torch.stack(distances).sum()

    def _flows(self, batch: Batch) -> Iterator[tuple[Maps, Maps]]:
        """A stage's input and output here, and in the source."""
        found = list(paired_maps(batch, self.hook_layers, self._net, self.name))
        for before, after in zip(found[::2], found[1::2], strict=True):
            yield pooled(before[0], after[0]), pooled(before[1], after[1])


def flow(a: Tensor, b: Tensor) -> Tensor:
    """(B, C, P) and (B, D, P) to (B, C, D): inner products of channels over positions, divided by their number.

    Returns:
        (B, C, D) with its graph.
    """
    return (a @ b.mT) / a.shape[2]


def squared_distance(mine: Maps, theirs: Maps) -> Tensor:
    """(B,) squared distances of the matrices of two pairs of maps, (B, C, P) and (B, D, P) each.

    Returns:
        (B,) with its graph.
    """
    return (flow(*mine) - flow(*theirs)).square().sum((1, 2))


def apart_at_length_1(mine: Maps, theirs: Maps) -> Tensor:
    """The same of matrices that are brought to Frobenius length 1; those of zeros stay, and send no gradient.

    Deep layers have more channels than positions. Their matrices would be the largest tensors of the whole step, so inner products
    of matrices are taken without them there.

    Args:
        mine: (B, C, P) and (B, D, P), with a graph.
        theirs: The same, without one.

    Returns:
        (B,) with its graph.

    Examples:
        >>> import torch
        >>> ones, eye = torch.ones(1, 2, 2), torch.eye(2)[None]
        >>> round(apart_at_length_1((ones, ones), (eye, eye)).item(), 4)  # 2 - 2 * 2 / (2 * sqrt(2))
        0.5858
    """
    (channels, positions), others = mine[0].shape[1:], mine[1].shape[1]
    if 2 * positions * (channels + others) < channels * others:
        return from_positions(mine, theirs)
    return from_matrices(flow(*mine), flow(*theirs))


def from_positions(mine: Maps, theirs: Maps) -> Tensor:
    """`apart_at_length_1` by <A B', C D'> = <A'C, B'D>: on the right both are (P, P)."""

    def inner(one: Maps, other: Maps) -> Tensor:
        first, second = (a.mT @ b for a, b in zip(one, other, strict=True))
        return (first * second).sum((1, 2))

    squares = inner(mine, mine), inner(theirs, theirs)
    lengths = [nonzero(square).sqrt() for square in squares]
    units = sum((square > 0).to(square.dtype) for square in squares)
    # Rounding may take equal ones below 0.
    return (units - 2 * inner(mine, theirs) / lengths[0] / lengths[1]).clamp_min(0)


def from_matrices(mine: Tensor, theirs: Tensor) -> Tensor:
    """`apart_at_length_1` of (B, C, D) matrices."""
    found: Tensor = _Apart.apply(mine, theirs)
    return found


class _Apart(torch.autograd.Function):
    """The matrices are the largest tensors of the penalty: here they are gone over eight times, by autograd some twenty times."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, theirs: Tensor) -> Tensor:
        inverse, other = (torch.where(length > 0, 1 / length, 0.0) for length in map(_length, (mine, theirs)))
        unit, error = mine * inverse, theirs * other
        torch.sub(unit, error, out=error)  # After a rounding each, so that equal matrices are no distance apart.
        ctx.save_for_backward(unit, error, inverse)
        return _length(error).square().flatten()

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[Tensor, None]:
        unit, error, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(error.flatten(1), unit.flatten(1))[:, None, None]
        return torch.addcmul(error, unit, -along).mul_(2 * inverse * slopes[0][:, None, None]), None


def _length(matrices: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    return found
