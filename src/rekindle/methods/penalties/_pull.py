"""Pulls on weights, strength * measure(w - anchor), in closed form; the measure of L2 and L2-SP is half the square."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from rekindle.method import GradientPairs
from rekindle.methods._math import wide

Scope = Literal["all", "weights"]


class Measure:
    """What a distance w - anchor costs: half its square. Other penalties override it.

    Each method receives `distances` (one tensor per parameter) and `rows`, the indices of those parameters in the full list of
    the pull, so that per-parameter weights can be looked up.
    """

    def costs(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """A scalar for each distance, differentiable."""
        return [0.5 * d.square().sum() for d in distances]

    def slopes(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """The gradient of each cost, of the distance's shape; it may be written over the distance, which nobody else reads."""
        return distances

    def shrunk(self, distance: Tensor, row: int, amount: float) -> Tensor:
        """The proximal operator of amount * cost at a distance."""
        raise TypeError(f"{type(self).__name__} has no proximal operator.")


@dataclass
class Pull:
    """Parameters pulled with one strength towards `anchors`, or towards zero where that is None."""

    parameters: list[nn.Parameter]
    anchors: list[Tensor] | None
    strength: float
    measure: Measure = field(default_factory=Measure)

    def gradient(self) -> GradientPairs:
        """Strength * slope of the measure at w - anchor, in float32 or better."""
        rows = self._rows()
        if not rows or self.strength == 0:
            return []
        slopes = self.measure.slopes(self._distances(rows, detached=True), rows)
        if self.anchors is None:  # Then the distances are the parameters themselves.
            slopes = list(torch._foreach_mul(slopes, self.strength))
        elif self.strength != 1:
            torch._foreach_mul_(slopes, self.strength)
        return list(zip([self.parameters[row] for row in rows], slopes, strict=True))

    def value(self) -> Tensor:
        """Strength * measure of w - anchor, differentiable."""
        rows = self._rows()
        if not rows:
            return torch.zeros(())
        return self.strength * torch.stack(self.measure.costs(self._distances(rows), rows)).sum()

    @torch.no_grad()
    def shrink_(self, lr: Callable[[nn.Parameter], float]) -> None:
        """Apply the proximal operator of lr * strength * measure to each parameter in place."""
        rows = [row for row in self._rows() if lr(self.parameters[row]) > 0]
        if not rows or self.strength == 0 or self.anchors is None:
            return
        for row, distance in zip(rows, self._distances(rows, detached=True), strict=True):
            parameter = self.parameters[row]
            parameter.copy_(self.anchors[row] + self.measure.shrunk(distance, row, lr(parameter) * self.strength))

    def _rows(self) -> list[int]:
        """What may move: a frozen parameter contributes nothing and gets no gradient."""
        return [row for row, p in enumerate(self.parameters) if p.requires_grad]

    def _distances(self, rows: list[int], detached: bool = False) -> list[Tensor]:
        parameters = [self.parameters[row].detach() if detached else self.parameters[row] for row in rows]
        values = [wide(p) for p in parameters]
        return values if self.anchors is None else list(torch._foreach_sub(values, [self.anchors[row] for row in rows]))


def in_scope(parameters: dict[str, nn.Parameter], scope: Scope) -> dict[str, nn.Parameter]:
    """All parameters, or for "weights" those with two or more dimensions (no biases, no BatchNorm)."""
    return {name: p for name, p in parameters.items() if scope == "all" or p.ndim >= 2}
