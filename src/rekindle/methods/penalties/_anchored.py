"""What the "-SP" penalties share: their anchors, the decay of new parameters, and the state of both.

SP is the starting point, the pre-trained weights (Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483, section 3). Not
methods themselves: a method derives from one of these classes and gives its own measure of the distance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rekindle.method import Clock, GradientPairs, Method, Net, Source, require
from rekindle.methods.penalties._pull import Measure, Pull, Scope, in_scope
from rekindle.spec import NonNegative

Solver = Literal["subgradient", "proximal"]


@dataclass
class TowardsStart(Method):
    """Strength * measure(w - w0) on shared parameters, beta/2 * ||w||^2 on new ones; see `L2SP` for the arguments."""

    alpha: NonNegative = 0.01
    beta: NonNegative = 1e-4
    scope: Scope = "all"

    def attach(self, net: Net, source: Source) -> None:
        """Take the source's weights as anchors: float32, detached, and on the parameters' device."""
        shared = in_scope(net.shared(), self.scope)
        require(bool(shared), f"{self.name}: the network shares no parameter with its source, so there is nothing to pull towards.")
        self._names = list(shared)
        self._anchors = [source.tensors[net.source_names[name]].to(p.device) for name, p in shared.items()]
        self._shared = Pull(list(shared.values()), self._anchors, self.alpha, self._measure(net, source))
        self._new = Pull(list(in_scope(net.decayed(net.new()), self.scope).values()), None, self.beta)

    def _measure(self, net: Net, source: Source) -> Measure:
        """What a distance from the start costs; `_names` and `_anchors` are there already."""
        return Measure()

    def gradient(self, clock: Clock) -> GradientPairs:
        """alpha * slope of the measure on shared parameters, beta * w on new ones."""
        return self._shared.gradient() + self._new.gradient()

    def value(self, clock: Clock) -> Tensor:
        """alpha * measure of the distance + beta/2 * ||w_new||^2."""
        return self._shared.value() + self._new.value()

    def state_dict(self) -> dict[str, Any]:
        """The anchors by parameter name."""
        return {"anchors": dict(zip(self._names, self._anchors, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the stored anchors in the place of the source's, which others share."""
        stored = zip(self._anchors, (state["anchors"][name] for name in self._names), strict=True)
        self._anchors[:] = [torch.empty_like(anchor).copy_(tensor) for anchor, tensor in stored]


@dataclass
class Shrinking(TowardsStart):
    """The same for measures with a kink at 0: by their subgradient, or by their proximal operator after each step."""

    alpha: NonNegative = 1e-4
    solver: Solver = "subgradient"

    def incompatible_with_direction(self) -> str | None:
        """The proximal operator is none of the gradients that a direction combines."""
        if self.solver == "subgradient":
            return None
        return (
            'solver="proximal" moves weights after the optimiser\'s step, past the direction; give solver="subgradient", '
            "or leave the direction out."
        )

    def gradient(self, clock: Clock) -> GradientPairs:
        """The subgradient, 0 at the kink; the proximal solver leaves only that of new parameters."""
        return self._new.gradient() if self.solver == "proximal" else super().gradient(clock)

    def value(self, clock: Clock) -> Tensor:
        """The whole penalty; what the proximal solver handles is detached, for it sends no gradient."""
        if self.solver == "subgradient":
            return super().value(clock)
        with torch.no_grad():
            shared = self._shared.value()
        return shared + self._new.value()

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        """The proximal operator of lr * alpha * measure, which brings weights back to w0 exactly."""
        if self.solver == "proximal":
            self._shared.shrink_(lr)
