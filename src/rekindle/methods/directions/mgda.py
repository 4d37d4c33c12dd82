"""MGDA: the shortest vector between two gradients, which descends on both.

Sener, Koltun: Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018 (arXiv 1810.04650), Algorithm 1 for two tasks, after
Desideri's multiple-gradient descent algorithm (2012). The step is gamma g + (1 - gamma) h with gamma = <h - g, h> / ||g - h||^2, cut to
[0, 1]; it descends on both alike, <step, g> and <step, h> being at least ||step||^2, or is 0, where nothing descends on both.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from rekindle.method import Direction
from rekindle.spec import Granularity, WeightDecay


@dataclass(frozen=True)
class MGDA(Direction):
    """Take the shortest convex combination of the loss's gradient and the regulariser's.

    Where the regulariser has no gradient, as a pull to the source has none before the first step, g is taken as it is.

    Args:
        granularity: "global" takes all shared parameters as one vector, as published, "layer" those of a module, "tensor" each by itself.
        weight_decay: Plain weight decay, which knows nothing of the source, is added as it is ("outside"), or is part of h ("inside").
    """

    granularity: Granularity = "global"
    weight_decay: WeightDecay = "outside"

    name: ClassVar[str] = "mgda"
    paper: ClassVar[str] = "Sener, Koltun, NeurIPS 2018, arXiv 1810.04650"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """(gamma, 1 - gamma)."""
        return shortest(gg, gh, hh) if gg > 0 and hh > 0 else (1.0, 1.0)


def shortest(gg: float, gh: float, hh: float) -> tuple[float, float]:
    """Weights, of sum 1, of the shortest vector on the segment from h to g, for squared lengths above 0.

    The vectors are compared as if the longer had length 1, so that no square of theirs is too large or small for a float.

    Returns:
        (a, b) of the combination a * g + b * h, each from 0 to 1.

    Examples:
        >>> shortest(gg=1.0, gh=0.0, hh=1.0)
        (0.5, 0.5)
    """
    scale = math.sqrt(max(gg, hh))
    g, h = math.sqrt(gg) / scale, math.sqrt(hh) / scale
    inner = max(-1.0, min(1.0, gh / math.sqrt(gg) / math.sqrt(hh))) * g * h
    if inner >= min(g, h) ** 2:  # An end of the segment is nearest to 0.
        return (1.0, 0.0) if g <= h else (0.0, 1.0)
    between = (g * g - inner) + (h * h - inner)
    return (h * h - inner) / between, (g * g - inner) / between
