"""Fast trainable projection: after each step every tensor is projected into a ball around its start, whose radius is learnt on the way.

Tian, Liu, Smith, Kira: Fast Trainable Projection for Robust Fine-Tuning, NeurIPS 2023 (arXiv 2310.19182). The gradient of a step's batch
at the weights that the step before projected is also, by the chain rule, the gradient by the radius of that projection. So no second pass
and no further pictures are needed: each new batch judges the radius of the one before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rekindle.method import Clock, Net, Source
from rekindle.methods._math import wide
from rekindle.methods.anchors._held import HeldWeights
from rekindle.methods.anchors._radius import LEAST, Norm, RadiusAdam, lengths, shares, slope
from rekindle.methods.penalties._pull import Scope
from rekindle.spec import Positive, Share


@dataclass
class FTP(HeldWeights):
    """Hold each tensor in a ball around its start whose radius the training gradient widens and narrows.

    Args:
        norm: Length of a distance: "mars", the maximum absolute row sum, as published, or "l2".
        kappa: Factor from 0 to 1 on gradients that would narrow a ball; 1, the authors' default, narrows as readily as it widens, and with 0
            balls only widen.
        radius_lr: Step of Adam on the radii, above 0; published is 0.01.
        scope: "all", as published, or "weights" for tensors with two or more dimensions.

    Raises:
        ValueError: If an argument is out of range, or the network shares nothing with its source.
    """

    norm: Norm = "mars"
    kappa: Share = 1.0
    radius_lr: Positive = 0.01
    scope: Scope = "all"

    name: ClassVar[str] = "ftp"
    paper: ClassVar[str] = "Tian, Liu, Smith, Kira, NeurIPS 2023, arXiv 2310.19182"
    neutral: ClassVar[dict[str, Any] | None] = None

    def attach(self, net: Net, source: Source) -> None:
        """Take the anchors; no tensor has a ball yet."""
        super().attach(net, source)
        self._radii: dict[str, RadiusAdam] = {}
        self._projected: dict[str, Tensor] = {}
        self._slopes: dict[str, Tensor] = {}

    def before_step(self, clock: Clock) -> None:
        """Note the gradient by the radius of each tensor's last projection."""
        self._slopes = {
            name: slope(wide(p.grad), self._projected[name], lengths(self._projected[name], self.norm))  # type: ignore[arg-type]
            for name, p in self._moving().items()
            if name in self._radii
        }

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        """Step each radius, then project; the first time a tensor is seen its radius is the least there is."""
        names = list(self._moving())
        for name, distance in zip(names, self._distances(names), strict=True):
            parameter, length = self._parameters[name], lengths(distance, self.norm)
            ball = self._radii.setdefault(name, RadiusAdam(torch.full_like(length.max(), LEAST), steps=1))
            if name in self._slopes:
                ball.step(self._slopes[name] * torch.where(self._slopes[name] > 0, self.kappa, 1.0), self.radius_lr)
                ball.bound(length)
            parameter.copy_(self._anchors[name] + shares(ball.radius, length) * distance)
            self._projected[name] = distance
        self._slopes = {}

    def state_dict(self) -> dict[str, Any]:
        """Anchors, radii with their moments, and the distances before the last projection."""
        radii = {name: ball.state_dict() for name, ball in self._radii.items()}
        return {**super().state_dict(), "radii": radii, "projected": dict(self._projected)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._radii = {name: RadiusAdam.from_state(kept, self._anchors[name].device) for name, kept in state["radii"].items()}
        self._projected = {name: tensor.to(self._anchors[name].device) for name, tensor in state["projected"].items()}
