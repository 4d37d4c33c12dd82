"""Keep the source's activations: strength/2 * sum over layers of the mean over the batch of ||F_s - F_t||^2 / ||F_t||^2.

Romero et al.: FitNets, ICLR 2015 (arXiv 1412.6550), equation 3, without a regressor, since the two networks have one
architecture; as `fea_map` in the DELTA authors' code: the sum over a batch of 64, undivided, with strength 0.01. That is tied to the size of
the activations and of the batch, and makes SqueezeNet diverge in three steps; hence the division.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rekindle.method import Batch, Method, Net, Source
from rekindle.methods.distillation._layers import Layers, Reduction, find_layers, paired, relative
from rekindle.spec import NonNegative


@dataclass
class FeatureMaps(Method):
    """Keep activations near those of the source, all channels alike.

    Args:
        strength: At least 0.
        layers: "stages" for the output of every stage, or a name or names of layers.
        reduction: "relative" divides each sample's distance by the squared length of the source's activation and takes the mean over
            the batch; "batchmean" takes the mean alone; "sum" is the sum over the batch, as published, which changes with the size of
            a batch, its micro-batches and the number of devices.

    Raises:
        ValueError: For an argument out of range or an unknown layer.
    """

    strength: NonNegative = 1.0
    layers: Layers = "stages"
    reduction: Reduction = "relative"

    paper: ClassVar[str] = "Romero et al. (FitNets), ICLR 2015, arXiv 1412.6550"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_source = self.strength > 0

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers."""
        if self.uses_source:
            self._net = net
            self.hook_layers = self.source_hook_layers = find_layers(net, source, self.layers, self.name)

    def penalty(self, batch: Batch) -> Tensor | None:
        """strength/2 * the squared distance of all activations, reduced."""
        if not self.uses_source:
            return None
        distances = [self._distance(mine, theirs) for mine, theirs in paired(batch, self.hook_layers, self._net, self.name)]
        return 0.5 * self.strength * torch.stack(distances).sum()

    def _distance(self, mine: Tensor, theirs: Tensor) -> Tensor:
        each = (mine - theirs).square().sum((1, 2))
        if self.reduction == "relative":
            each = relative(each, theirs)
        return each.sum() if self.reduction == "sum" else each.mean()
