"""Selective projection decay: weights are brought back towards their start only where the loss pulls them there already.

Tian, Huang, Kira: Rethinking Weight Decay for Robust Fine-Tuning of Foundation Models, NeurIPS 2024 (arXiv 2411.01713), equations 3, 4 and
9. For each tensor, with the gradient g at the weights w before a step, and v after the optimiser's step,

    c = -<g, w - w0>,    r = max(0, ||v - w0|| - ||w - w0||) / ||v - w0||,    v <- v - lambda * r * (v - w0) where c < 0.

With c < 0 descending the gradient leads back towards w0, so what still goes outwards is momentum and adaptive steps. With lambda = 1 the
decay is the projection to the distance that the tensor had before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rekindle.method import Clock
from rekindle.methods._math import safe_divide, wide
from rekindle.methods.anchors._held import HeldWeights
from rekindle.methods.penalties._pull import Scope
from rekindle.spec import NonNegative


@dataclass
class SPD(HeldWeights):
    """Undo steps that lead a tensor away from its start where its gradient leads back.

    Args:
        strength: lambda, at least 0; 1, as the authors advise to begin with, brings a tensor back to the distance before the step, less
            goes part of the way, and more goes further in, up to the start.
        scope: "all", or "weights" for tensors with two or more dimensions.

    Raises:
        ValueError: If an argument is out of range, or the network shares nothing with its source.
    """

    strength: NonNegative = 1.0
    scope: Scope = "all"

    paper: ClassVar[str] = "Tian, Huang, Kira, NeurIPS 2024, arXiv 2411.01713"
    neutral: ClassVar[dict[str, Any] | None] = {"strength": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def before_step(self, clock: Clock) -> None:
        """Note each tensor's <g, w - w0> and ||w - w0||."""
        moving = self._moving() if self.strength else {}
        distances = self._distances(list(moving))
        self._before = {
            name: ((wide(p.grad) * distance).sum(), torch.linalg.vector_norm(distance))  # type: ignore[arg-type]
            for (name, p), distance in zip(moving.items(), distances, strict=True)
        }

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        """v <- v - min(lambda * r, 1) * (v - w0) where c < 0."""
        for (name, (slope, before)), distance in zip(self._before.items(), self._distances(list(self._before)), strict=True):
            share = self.strength * deviation_ratio(torch.linalg.vector_norm(distance), before)
            parameter = self._parameters[name]
            parameter.copy_(wide(parameter) - torch.where(slope > 0, share.clamp(max=1.0), 0.0) * distance)
        self._before = {}


def deviation_ratio(now: Tensor, before: Tensor) -> Tensor:
    """max(0, now - before) / now, the share of a distance that the last step added; 0 where there is no distance.

    Returns:
        A scalar from 0 to 1.
    """
    return safe_divide((now - before).clamp(min=0.0), now)
