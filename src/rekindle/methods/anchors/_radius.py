"""Projections of weights into balls around their start, and how fast a weight's loss changes with a ball's radius.

Shared by TPGM and FTP. A tensor is v = w0 + d. Under "l2" its length is ||d||_2 and it has one; under "mars", the maximum absolute row
sum, each row (an output channel) has a length of its own, the sum of its absolute values, and all must keep to the same radius. The
projection scales what is too long: w0 + min(1, radius / length) * d.
"""

from typing import Any, Literal, Self

import torch
from torch import Tensor

from rekindle.methods._math import safe_divide

Norm = Literal["mars", "l2"]
LEAST = 1e-8  # Of a radius, as in the authors' code.


def lengths(distance: Tensor, norm: Norm) -> Tensor:
    """The length of a tensor ("l2") or of each of its rows ("mars"), of a shape that broadcasts with it."""
    if norm == "mars" and distance.ndim < 2:
        return distance.abs()
    ones = [1] * (distance.ndim - 1)
    found: Tensor = (
        torch.linalg.vector_norm(distance).reshape(1, *ones) if norm == "l2" else distance.abs().flatten(1).sum(1).reshape(-1, *ones)
    )
    return found if distance.ndim else found.reshape(())


def shares(radius: Tensor, length: Tensor) -> Tensor:
    """min(1, radius / length), by which distances are scaled; 1 where there is no distance."""
    return torch.where(length > radius, safe_divide(radius.expand_as(length), length), 1.0)


def slope(gradient: Tensor, distance: Tensor, length: Tensor) -> Tensor:
    """d loss / d radius where all of the tensor is scaled: the sum over its rows of <gradient, distance> / length.

    Args:
        gradient: Of the loss at the projected weights.
        distance: v - w0, before the projection.
        length: Its `lengths`.
    """
    return safe_divide(gradient * distance, length.expand_as(distance)).sum()


class RadiusAdam:
    """Adam on one radius, as the authors have it: betas 0.9 and 0.999, epsilon 1e-8.

    Args:
        radius: Where it begins.
        first: First moment.
        second: Second moment.
        steps: Done so far.
    """

    def __init__(self, radius: Tensor, first: Tensor | None = None, second: Tensor | None = None, steps: int = 0) -> None:
        self.radius, self.steps = radius, steps
        self.first = torch.zeros_like(radius) if first is None else first
        self.second = torch.zeros_like(radius) if second is None else second

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Self:
        """From what `state_dict` gave."""
        return cls(state["radius"].to(device), state["first"].to(device), state["second"].to(device), state["steps"])

    def step(self, gradient: Tensor, lr: float) -> None:
        """One step down; the radius is not bounded by it."""
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient.square()
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        self.radius = self.radius - lr * first / (second.sqrt() + 1e-8)

    def bound(self, length: Tensor) -> None:
        """Keep the radius between `LEAST` and the greatest length that there is."""
        self.radius = torch.minimum(self.radius.clamp(min=LEAST), length.max().clamp(min=LEAST))

    def state_dict(self) -> dict[str, Tensor | int]:
        """All of it."""
        return {"radius": self.radius, "first": self.first, "second": self.second, "steps": self.steps}
