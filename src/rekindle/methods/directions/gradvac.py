"""GradVac: bend two gradients towards each other until they agree as much as they usually do.

Wang, Tsvetkov, Firat, Cao: Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual Models, ICLR
2021 (arXiv 2010.05874). A target t is the moving average of their cosine c, t <- (1 - beta) t + beta c, from 0. Where c < t, g becomes g +
k ||g||/||h|| h and h becomes h + k ||h||/||g|| g with k = (t sqrt(1 - c^2) - c sqrt(1 - t^2)) / sqrt(1 - t^2), after which each has the
cosine t with the other as it was. With t = 0, as long as beta is 0, this is PCGrad.
"""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from rekindle.method import Direction
from rekindle.methods.directions.dtnh import LARGEST
from rekindle.spec import Granularity, WeightDecay


@dataclass(frozen=True)
class GradVac(Direction):
    """Raise the cosine of the loss's gradient and the regulariser's to its own moving average, where it is below.

    Args:
        beta: Rate of the moving average, from 0 (PCGrad) to below 1; published 0.01.
        granularity: What has a cosine and an average of its own: "layer", the parameters of a module, "tensor", each, or "global", all
            shared ones together. The paper has one for each layer, as we read it.
        weight_decay: Plain weight decay, which knows nothing of the source, is added as it is ("outside"), or is part of h ("inside").
    """

    beta: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    granularity: Granularity = "layer"
    weight_decay: WeightDecay = "outside"

    name: ClassVar[str] = "gradvac"
    paper: ClassVar[str] = "Wang, Tsvetkov, Firat, Cao, ICLR 2021, arXiv 2010.05874"

    _targets: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """Those of a first step, whose target is 0."""
        return bent(gg, gh, hh, 0.0)

    def weights_of(self, block: str, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """Those for the block's target, which then follows the cosine."""
        length = math.sqrt(gg) * math.sqrt(hh)
        if length == 0:
            return 1.0, 1.0
        target = self._targets.get(block, 0.0)
        self._targets[block] = (1 - self.beta) * target + self.beta * max(-1.0, min(1.0, gh / length))
        return bent(gg, gh, hh, target)

    def state_dict(self) -> dict[str, Any]:
        """The targets by block."""
        return {"targets": dict(self._targets)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._targets.clear()
        self._targets.update(state.get("targets", {}))


def bent(gg: float, gh: float, hh: float, target: float) -> tuple[float, float]:
    """Weights for g and h, whose cosine is raised to the target where it is below; (1, 1) where one has no length to speak of.

    Args:
        gg: <g,g>.
        gh: <g,h>.
        hh: <h,h>.
        target: Above -1 and below 1.

    Returns:
        (a, b) of the combination a * g + b * h.
    """
    g, h = math.sqrt(gg), math.sqrt(hh)
    sine = math.sqrt(1 - target * target)
    if min(g, h, sine) == 0:
        return 1.0, 1.0
    cosine = max(-1.0, min(1.0, gh / g / h))
    k = (target * math.sqrt(1 - cosine * cosine) - cosine * sine) / sine
    if cosine >= target or k * max(g / h, h / g) > LARGEST:
        return 1.0, 1.0
    return 1.0 + k * h / g, 1.0 + k * g / h
