"""Frozen BatchNorm: the layers keep the statistics that they were pre-trained with; their weights and biases train.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385), appendix A: statistics are computed
after pre-training and fixed while the network is fine-tuned. Those of a small batch of a small set are another network's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.method import Method, Net, Source


@dataclass
class FreezeBatchNorm(Method):
    """Let every BatchNorm of the backbone normalise by its running statistics in training too, and leave them as they are.

    A network without BatchNorm is left alone.
    """

    name: ClassVar[str] = "freeze_batchnorm"
    paper: ClassVar[str] = "He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385, appendix A"
    neutral: ClassVar[dict[str, Any] | None] = None

    def incompatible_with(self, other: Method) -> str | None:
        """Stochastic normalisation tosses between two statistics, of which one is left."""
        tosses = other.name == "stoch_norm"
        return (
            "stoch_norm draws between the statistics that freeze_batchnorm keeps and the batch's; take one of the two." if tosses else None
        )

    def attach(self, net: Net, source: Source) -> None:
        """Keep what belongs to the source in evaluation mode; a BatchNorm in the new head has nothing to keep."""
        new = {id(part) for module in net.head_modules() for part in module.modules()}
        for module in net.model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None and id(module) not in new:
                stay_in_eval(module)


def stay_in_eval(module: nn.Module) -> None:
    """Hold a layer in evaluation mode, though loops call `train()` on the whole network at every epoch."""
    if not any(hook is leave_training for hook in module._forward_pre_hooks.values()):
        module.register_forward_pre_hook(leave_training)


def leave_training(module: nn.Module, inputs: Any) -> None:
    """The hook of `stay_in_eval`."""
    module.training = False
