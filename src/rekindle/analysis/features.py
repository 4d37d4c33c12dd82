"""What a network's classifier sees of pictures, and what it says of them."""

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from rekindle import models
from rekindle.hooks import INPUT, FeatureHooks


class FeatureReader:
    """Reads features during forward passes, inside a `with`, which leaves no hook on the network.

    Args:
        module: The network; features of one without a classifier are its outputs.
    """

    def __init__(self, module: nn.Module) -> None:
        self.headless = models.width_of_classifier(module) == 0
        self._module = module
        self._names = [] if self.headless else [part + INPUT for part in _classifiers(module)]

    def __enter__(self) -> Self:
        self._hooks = FeatureHooks(self._module, self._names)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.remove()

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of inputs (B, 3, S, S): features (B, D) and outputs (B, C).

        Maps and sequences are averaged over positions, and two classifiers' features stand side by side.

        Returns:
            (features (B, D), outputs (B, C)).
        """
        with torch.no_grad():
            outputs: Tensor = self._module(x)
        kept = self._hooks.take()
        seen = [outputs] if self.headless else [kept[name] for name in self._names]
        return torch.cat([_pooled(one) for one in seen], 1), outputs


def _classifiers(module: nn.Module) -> list[str]:
    """The part that takes the features, or the classifiers where there are two."""
    head = models.find_classifier(module)
    whole = models.source_classifier(module, head)
    return [whole] if whole else head


def _pooled(activation: Tensor) -> Tensor:
    """(B, D) from (B, D), (B, D, H, W) or (B, T, D), in float32 or better: means in half precision lose what tells pictures apart."""
    activation = activation.to(torch.promote_types(activation.dtype, torch.float32))
    if activation.ndim == 4:
        return activation.mean((2, 3))
    return activation.mean(1) if activation.ndim == 3 else activation
