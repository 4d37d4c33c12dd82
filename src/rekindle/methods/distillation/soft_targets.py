"""Knowledge distillation from the source's own classes: (1 - a) * CE + a * T^2 * KL(p_t || p_s).

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531), section 2. The defaults T = 4,
a = 0.9 and the factor T^2 are those of the attention-transfer authors' code. The teacher is the frozen source in
evaluation mode; its classes are not the target's, so the network keeps the source's classifier, frozen, beside the new one.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rekindle.method import Batch, Method, Net, Source
from rekindle.methods._source_head import keep_source_head
from rekindle.methods.distillation._softened import softened_loss, source_logits
from rekindle.spec import Positive, Share


@dataclass
class SoftTargets(Method):
    """Keep the source's softened predictions on the new images (knowledge distillation).

    Args:
        weight: a, from 0 to 1; the task's own loss gets 1 - a.
        temperature: T of both softmaxes, above 0.
        scale_t2: Multiply the divergence by T^2.

    Raises:
        ValueError: For an argument out of range, or a source without a classifier, or with two.
    """

    weight: Share = 0.9
    temperature: Positive = 4.0
    scale_t2: bool = True

    paper: ClassVar[str] = "Hinton, Vinyals, Dean, 2015, arXiv 1503.02531"
    neutral: ClassVar[dict[str, Any]] = {"weight": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_source = self.weight > 0

    def surgery(self, net: Net, source: Source) -> None:
        """Keep the source's classifier, frozen."""
        if self.uses_source:
            self.hook_layers = (keep_source_head(net, source, self.name, trainable=False),)

    def penalty(self, batch: Batch) -> Tensor | None:
        """a * T^2 * KL."""
        if not self.uses_source:
            return None
        ours, theirs = source_logits(batch, self.hook_layers[0], self.name)
        return self.weight * softened_loss(ours, theirs, self.temperature, "kl", self.scale_t2)

    def task_weight(self) -> float:
        """1 - a."""
        return 1.0 - self.weight
