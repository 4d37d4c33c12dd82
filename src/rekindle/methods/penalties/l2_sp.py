"""L2-SP: alpha/2 * ||w - w0||^2 on shared parameters, beta/2 * ||w||^2 on new ones.

Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018
(arXiv 1802.01483), section 3. w0 is the pre-trained start. Defaults are those of the RIFLE authors' code (alpha 0.01,
beta 1e-4, all parameters); the L2-SP paper itself takes weights only and beta 0.01.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rekindle.method import Clock, GradientPairs, Method, Net, Source, require
from rekindle.methods.penalties.quadratic import Pull, check_scope, check_strength, in_scope


@dataclass
class L2SP(Method):
    """Pull shared parameters towards their pre-trained values, new ones towards zero.

    Args:
        alpha: Strength on shared parameters, at least 0.
        beta: Strength on new parameters, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.

    Raises:
        ValueError: If a strength or the scope is out of range, or the network shares nothing with its source.
    """

    alpha: float = 0.01
    beta: float = 1e-4
    scope: str = "all"

    paper: ClassVar[str] = "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "beta": 0.0}

    def __post_init__(self) -> None:
        check_strength("l2_sp", "alpha", self.alpha)
        check_strength("l2_sp", "beta", self.beta)
        check_scope("l2_sp", self.scope)

    def attach(self, net: Net, source: Source) -> None:
        """Copy the anchors: float32, detached, never from weights that may have moved."""
        shared = in_scope(net.shared(), self.scope)
        require(bool(shared), "l2_sp: the network shares no parameter with its source, so there is nothing to pull towards.")
        self._names = list(shared)
        anchors = [source.tensors[net.origin[name]].to(p.device, copy=True) for name, p in shared.items()]
        self._shared = Pull(list(shared.values()), anchors, self.alpha)
        self._new = Pull(list(in_scope(net.new(), self.scope).values()), None, self.beta)

    def gradient(self, clock: Clock) -> GradientPairs:
        """alpha * (w - w0) on shared parameters, beta * w on new ones."""
        return self._shared.gradient() + self._new.gradient()

    def value(self, clock: Clock) -> Tensor:
        """alpha/2 * ||w - w0||^2 + beta/2 * ||w_new||^2."""
        return self._shared.value() + self._new.value()

    def state_dict(self) -> dict[str, Any]:
        """The anchors by parameter name."""
        assert self._shared.anchors is not None
        return {"anchors": dict(zip(self._names, self._shared.anchors, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the stored anchors back, in place."""
        assert self._shared.anchors is not None
        for name, anchor in zip(self._names, self._shared.anchors, strict=True):
            anchor.copy_(state["anchors"][name])
