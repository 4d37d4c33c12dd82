"""CAGrad: near the plain sum, the step that serves the worse served of two gradients best.

Liu, Liu, Jin, Stone, Liu: Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021 (arXiv 2110.14048), section 3.1. Among
all steps within c ||s|| of s = g + h it takes the one with the largest min(<step, g>, <step, h>); that is s + c ||s|| v / ||v||, where v =
w g + (1 - w) h and w in [0, 1] minimises <v, s> + c ||s|| ||v||. For two gradients w solves a quadratic equation. The paper's s is the
mean of the gradients and half as long; its step then is half of this one. c = 0 is the plain sum.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from rekindle.method import Direction
from rekindle.methods.directions.dtnh import LARGEST
from rekindle.spec import Granularity, WeightDecay


@dataclass(frozen=True)
class CAGrad(Direction):
    """Move from the plain sum, by at most c times its length, to where the loss and the regulariser are both served best.

    Args:
        c: How far, from 0 (the plain sum) to below 1, which would allow a step of length 0; 0.1 to 0.9 in the paper, 0.5 in its code.
        granularity: "global" takes all shared parameters as one vector, as published, "layer" those of a module, "tensor" each by itself.
        weight_decay: Plain weight decay, which knows nothing of the source, is added as it is ("outside"), or is part of h ("inside").
    """

    c: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    granularity: Granularity = "global"
    weight_decay: WeightDecay = "outside"

    name: ClassVar[str] = "cagrad"
    paper: ClassVar[str] = "Liu, Liu, Jin, Stone, Liu, NeurIPS 2021, arXiv 2110.14048"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """1 + c ||s|| / ||v|| * (w, 1 - w)."""
        if min(gg, hh) <= 0 or self.c == 0:
            return 1.0, 1.0
        scale = max(gg, hh)
        gg, gh, hh = gg / scale, gh / scale, hh / scale
        w = _least(gg, gh, hh, self.c)
        total = math.sqrt(max(0.0, gg + 2 * gh + hh))
        length = math.sqrt(max(0.0, w * w * gg + 2 * w * (1 - w) * gh + (1 - w) * (1 - w) * hh))
        if length == 0 or self.c * total / length > LARGEST:
            return 1.0, 1.0  # g and h cancel out: every step serves one at the other's cost.
        return 1.0 + self.c * total / length * w, 1.0 + self.c * total / length * (1 - w)


def _least(gg: float, gh: float, hh: float, c: float) -> float:
    """w in [0, 1] that minimises <v, s> + c ||s|| ||v||, v = w g + (1 - w) h.

    ||v||^2 is q (w - n)^2 + m with its minimum m at n, the shortest vector of the line. The derivative is 0 where
    (w - n) c ||s|| q = -slope ||v||, slope = ||g||^2 - ||h||^2 being that of <v, s>; without such a place an end is least.
    """
    q, slope, radius = gg - 2 * gh + hh, gg - hh, c * math.sqrt(max(0.0, gg + 2 * gh + hh))
    if q <= 0:
        return 0.5  # g = h, and every w is the same.
    n, m = (hh - gh) / q, max(0.0, (gg * hh - gh * gh) / q)
    curved = radius * radius * q - slope * slope
    if curved <= 0:
        return 0.0 if slope > 0 else 1.0
    return min(1.0, max(0.0, n - slope * math.sqrt(m / (q * curved))))
