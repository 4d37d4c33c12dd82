"""PCGrad: of two gradients that conflict, each gives up what points against the other.

Yu, Kumar, Gupta, Levine, Hausman, Finn: Gradient Surgery for Multi-Task Learning, NeurIPS 2020 (arXiv 2001.06782), Algorithm 1. With
<g, h> < 0, g becomes g - <g,h>/<h,h> h and h becomes h - <g,h>/<g,g> g, both from the gradients as they were, and their sum is the step.
It then ascends on neither: <step, g> and <step, h> are at least 0. DTNH, which changes h alone, keeps all of the progress along g.
"""

from dataclasses import dataclass
from typing import ClassVar

from rekindle.method import Direction
from rekindle.methods.directions.dtnh import share
from rekindle.spec import Granularity, WeightDecay


@dataclass(frozen=True)
class PCGrad(Direction):
    """Project the loss's gradient and the regulariser's each onto the normal plane of the other, on conflict only.

    Args:
        granularity: "global" takes all shared parameters as one vector, as published, "layer" those of a module, "tensor" each by itself.
        weight_decay: Plain weight decay, which knows nothing of the source, is added as it is ("outside"), or is part of h ("inside").
    """

    granularity: Granularity = "global"
    weight_decay: WeightDecay = "outside"

    name: ClassVar[str] = "pcgrad"
    paper: ClassVar[str] = "Yu, Kumar, Gupta, Levine, Hausman, Finn, NeurIPS 2020, arXiv 2001.06782"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """The plain sum at acute angles; else 1 - <g,h>/<g,g> for g and 1 - <g,h>/<h,h> for h."""
        return (1.0 - share(gh, gg), 1.0 - share(gh, hh)) if gh < 0 else (1.0, 1.0)
