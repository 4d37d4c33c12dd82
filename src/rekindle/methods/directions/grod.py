"""GrOD: the regulariser acts orthogonally to the loss's gradient, always.

Xiong, Wan, Zhao, Chen, Li, Zhu, Huan: GrOD: Deep Learning with Gradients Orthogonal Decomposition for Knowledge Transfer,
Distillation, and Adversarial Training, ACM TKDD 2022. The authors' code works on each tensor by itself and lets the regulariser fade: strength 0.1 * 0.99^epoch, which is
``l2_sp(alpha=0.1)`` with ``grod(preset="code")``. What its Paddle port executes differs from the formula in its comment (it
projects on w instead of g); the formula is what stands here.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval

from rekindle.method import Clock, Direction, with_presets
from rekindle.methods.directions.dtnh import orthogonal
from rekindle.spec import Granularity, WeightDecay

PRESETS: dict[str, dict[str, Any]] = {"code": {"granularity": "tensor", "rho": 0.99}}


@with_presets
@dataclass(frozen=True)
class GrOD(Direction):
    """Keep of the regulariser's gradient only what is orthogonal to the loss's, at every step.

    Args:
        granularity: "tensor" takes each parameter by itself, "layer" those of a module, "global" all shared ones together.
        rho: The regulariser's strength is multiplied by rho^epoch, from above 0 to 1.
        preset: "code" sets what the authors' code does: each tensor, rho 0.99; neither may then be given otherwise.
        weight_decay: Plain weight decay is added as it is ("outside"), as in the authors' code, or is part of h ("inside").
    """

    granularity: Granularity = "tensor"
    rho: Annotated[float, Interval(gt=0, le=1)] = 1.0
    preset: Literal["code"] | None = None
    weight_decay: WeightDecay = "outside"

    name: ClassVar[str] = "grod"
    paper: ClassVar[str] = "Xiong, Wan, Zhao, Chen, Li, Zhu, Huan, ACM TKDD 2022"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """g + P(h)."""
        return orthogonal(gg, gh)

    def strength(self, clock: Clock) -> float:
        """rho^epoch."""
        return float(self.rho**clock.epoch)
