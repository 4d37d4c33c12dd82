"""Learning without forgetting: CE + lambda * KL(p_t || p_s) between the source's outputs before and during training.

Li, Hoiem: Learning without Forgetting, ECCV 2016 (arXiv 1606.09282), section 3. Temperature 2, lambda 1 and no factor T^2, as
the authors' code. The source's classifier is kept and trained with the backbone. The paper records the targets once; here the
frozen source computes them on each batch in evaluation mode, so they belong to the very crop that the network sees.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from torch import Tensor
from torch.optim import Optimizer

from rekindle.errors import number_of
from rekindle.method import Batch, Clock, Method, Net, Source, require
from rekindle.methods._source_head import keep_source_head
from rekindle.methods.distillation._softened import Loss, softened_loss, source_logits
from rekindle.methods.restarts.cosine import half_cosine
from rekindle.spec import NonNegative, Positive


@dataclass
class LwF(Method):
    """Keep the source's outputs on the new images, its classifier being trained along (learning without forgetting).

    During warm-up the rate of the backbone, and of the source's classifier with it, is 0, so that the new head alone trains;
    then it follows one cosine over the whole run, and what the optimiser remembers of the backbone is cleared. BatchNorm's
    running statistics move during warm-up too.

    Args:
        strength: lambda, at least 0.
        temperature: T of both softmaxes, above 0.
        loss: "kl" or "ce", which differ by a constant.
        scale_t2: Multiply the loss by T^2.
        warmup_epochs: Epochs in which the new head alone trains, from 0 to one less than the run has.

    Raises:
        ValueError: For an argument out of range, or a source without a classifier, or with two.
    """

    strength: NonNegative = 1.0
    temperature: Positive = 2.0
    loss: Loss = "kl"
    scale_t2: bool = False
    warmup_epochs: Annotated[int, Ge(0)] = 0

    name: ClassVar[str] = "lwf"
    paper: ClassVar[str] = "Li, Hoiem, ECCV 2016, arXiv 1606.09282"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_source = self.strength > 0

    def surgery(self, net: Net, source: Source) -> None:
        """Keep the source's classifier, trainable."""
        if self.uses_source:
            self.hook_layers = (keep_source_head(net, source, self.name),)

    def attach(self, net: Net, source: Source) -> None:
        """Remember what warm-up holds still."""
        head = net.head_parameters()
        self._held = [p for name, p in net.parameters().items() if name not in head]

    def run_epochs(self, epochs: int) -> int:
        """All of them; some must be left after warm-up."""
        require(
            self.warmup_epochs < epochs,
            f"lwf: warmup_epochs must be below the {number_of(epochs, 'epoch')} of the run, found {self.warmup_epochs}.",
        )
        return epochs

    def lr_factor(self, group: str, clock: Clock) -> float | None:
        """With warm-up, the backbone's: 0, then the cosine of the whole run."""
        if not self.warmup_epochs or group != "backbone":
            return None
        return 0.0 if clock.epoch < self.warmup_epochs else half_cosine(clock.epoch, clock.epochs)

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Forget the momentum that gathered while the rate was 0; nothing is re-initialised."""
        if self.warmup_epochs and (clock.epoch, clock.step) == (self.warmup_epochs, 0):
            for parameter in self._held:
                optimizer.state.pop(parameter, None)
        return False

    def penalty(self, batch: Batch) -> Tensor | None:
        """lambda * KL, or cross entropy."""
        if not self.uses_source:
            return None
        ours, theirs = source_logits(batch, self.hook_layers[0], self.name)
        return self.strength * softened_loss(ours, theirs, self.temperature, self.loss, self.scale_t2)
