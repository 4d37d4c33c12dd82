"""Dropout of the features that the classifier reads.

Srivastava et al.: Dropout: A Simple Way to Prevent Neural Networks from Overfitting, JMLR 15 (2014); as "FC Dropout" a
comparison method of Li et al., RIFLE, ICML 2020 (arXiv 2007.03349), Table 1, with p in {0.1, 0.2, 0.5}.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch.nn.functional as F
from annotated_types import Interval
from torch import nn

from rekindle.method import Method, Net, Source, require


@dataclass
class Dropout(Method):
    """Drop features before the classifier in training, and scale up what is left.

    Args:
        p: Probability that a feature is dropped, from 0 (nothing happens) to below 1.

    Raises:
        ValueError: For an argument out of range, or a network without a named head.
    """

    p: Annotated[float, Interval(ge=0, lt=1)] = 0.5

    paper: ClassVar[str] = "Srivastava et al., JMLR 15 (2014) 1929-1958"
    neutral: ClassVar[dict[str, Any] | None] = {"p": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hooks: list[Any] = []

    def attach(self, net: Net, source: Source) -> None:
        """Watch what goes into the classifier, after all surgery on it; once, also where the network moves to another device."""
        for hook in self._hooks:
            hook.remove()
        if self.p:
            self._hooks = [part.register_forward_pre_hook(_DropInput(self.p)) for part in classifiers(net, "dropout")]


def classifiers(net: Net, owner: str) -> list[nn.Module]:
    """The parts that read the features: the classifier, or the first layer of the head; both of two heads side by side.

    Returns:
        One module, or two.

    Raises:
        ValueError: If the network has no named head.
    """
    require(bool(net.head), f"{owner}: the network has no head to act on; name its classifier with head=...")
    if net.classifier:
        return [net.model.get_submodule(net.classifier)]
    parents = {name.rpartition(".")[0] for name in net.head}
    chained = len(parents) == 1 and "" not in parents
    return net.head_modules()[:1] if chained else net.head_modules()


class _DropInput:
    """A forward pre-hook: dropout of a module's first input while it trains."""

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (F.dropout(inputs[0], self.p), *inputs[1:]) if module.training else None
