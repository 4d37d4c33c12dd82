"""L2: weight decay as a penalty, alpha/2 * ||w||^2 on every parameter.

The RIFLE paper's baseline (Li et al., ICML 2020, section 4.1) sets alpha = 1e-4 on all parameters, BatchNorm and
biases included. With the factor 1/2, alpha equals ``torch.optim.SGD(weight_decay=alpha)``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rekindle.method import Clock, GradientPairs, Method, Net, Source
from rekindle.methods.penalties._pull import Pull, Scope, in_scope
from rekindle.spec import NonNegative


@dataclass
class L2(Method):
    """Pull every parameter towards zero.

    Args:
        alpha: Strength, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.
    """

    alpha: NonNegative = 1e-4
    scope: Scope = "all"

    paper: ClassVar[str] = "weight decay; as in Li et al., RIFLE, ICML 2020, section 4.1"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0}
    is_weight_decay: ClassVar[bool] = True

    def attach(self, net: Net, source: Source) -> None:
        """Take every parameter of the network."""
        self._pull = Pull(list(in_scope(net.decayed(net.parameters()), self.scope).values()), None, self.alpha)

    def gradient(self, clock: Clock) -> GradientPairs:
        """alpha * w."""
        return self._pull.gradient()

    def value(self, clock: Clock) -> Tensor:
        """alpha/2 * ||w||^2."""
        return self._pull.value()
