"""Layer-wise learning-rate decay: the deeper a stage lies below the head, the slower it learns.

Howard and Ruder: Universal Language Model Fine-tuning for Text Classification, ACL 2018 (arXiv 1801.06146), section 3.2
(discriminative fine-tuning, each layer 1/2.6 of the one above); for vision transformers Bao, Dong, Piao, Wei: BEiT,
ICLR 2022 (arXiv 2106.08254), where each block has 0.65 to 0.75 of the one above.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from rekindle.method import Method, Net, Source


@dataclass
class LayerDecay(Method):
    """Multiply the learning rate by a factor for each stage down from the head.

    Args:
        factor: From above 0 to 1; 1 changes nothing. The last stage gets factor, the one before it factor squared, and so on.
    """

    factor: Annotated[float, Interval(gt=0, le=1)] = 0.75

    paper: ClassVar[str] = "Howard and Ruder, ACL 2018, arXiv 1801.06146; Bao et al., ICLR 2022, arXiv 2106.08254"
    neutral: ClassVar[dict[str, Any] | None] = {"factor": 1.0}

    def attach(self, net: Net, source: Source) -> None:
        """Number the stages from the head down."""
        self._depths = {name: depth for depth, stage in enumerate(reversed(net.stages.values()), 1) for name in stage}

    def lr_scale(self, parameter: str) -> float:
        """factor to the power of the stage's distance from the head; 1 for the head and for layers that stand beside the stages."""
        return float(self.factor ** self._depths.get(parameter, 0))
