"""DTNH: towards a direction in which the regulariser never hurts the empirical loss.

Wan, Xiong, Li, Zhu, Huan: Towards Making Deep Transfer Learning Never Hurt, ICDM 2019 (arXiv 1911.07489). With g the
gradient of the loss and h that of the regulariser, a regulariser that points against the loss (<g, h> < 0) is replaced by
its part orthogonal to g, so that the step keeps its full first-order progress on the loss: <direction, g> >= ||g||^2.

The abstract says that a descent direction is re-estimated; that it is done on conflict only, and for all shared parameters
as one vector, is our reading of it. h is that of transfer regularisers: plain weight decay is the optimiser's and not part of it.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from rekindle.method import Direction
from rekindle.spec import Granularity, WeightDecay

LARGEST = 1e38  # Weights multiply float32 tensors.


@dataclass(frozen=True)
class DTNH(Direction):
    """Remove from the regulariser's gradient what points against the loss's, on conflict only.

    Args:
        granularity: "global" takes all shared parameters as one vector, "layer" those of a module, "tensor" each by itself.
        weight_decay: Plain weight decay, which knows nothing of the source, is added as it is ("outside"), or is part of h ("inside").
    """

    granularity: Granularity = "global"
    weight_decay: WeightDecay = "outside"

    paper: ClassVar[str] = "Wan, Xiong, Li, Zhu, Huan, ICDM 2019, arXiv 1911.07489"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """The plain sum at acute angles, g + P(h) else."""
        return orthogonal(gg, gh) if gh < 0 else (1.0, 1.0)


def orthogonal(gg: float, gh: float) -> tuple[float, float]:
    """Weights of g + P(h), P(h) = h - <g,h>/<g,g> * g; where g is zero, or too small for the quotient, nothing can be hurt and P(h) = h.

    Returns:
        (a, b) of the combination a * g + b * h.

    Examples:
        >>> orthogonal(gg=4.0, gh=-2.0)
        (1.5, 1.0)
    """
    return 1.0 - share(gh, gg), 1.0


def share(gh: float, square: float) -> float:
    """<g,h> over a squared length: how much of one vector lies along the other; 0 where that has no length to speak of.

    Returns:
        A number; 0 where the length is none.
    """
    quotient = gh / square if square > 0 else 0.0
    return quotient if math.isfinite(quotient) and abs(quotient) <= LARGEST else 0.0
