"""Keep the source's activations: strength/2 * sum ||F_s - F_t||^2 over batch, layers and elements.

Romero et al.: FitNets, ICLR 2015 (arXiv 1412.6550), equation 3, without a regressor, since the two networks have one
architecture; as `fea_map` in the DELTA authors' code, whose strength is 0.01 for the sum over a batch of 64. The default is the
mean over the batch with 64 times that, which gives the same on such batches.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rekindle.method import Batch, Method, Net, Source
from rekindle.methods.distillation.layers import find_layers, paired
from rekindle.methods.distillation.options import REDUCTIONS, check_choice, check_layers, check_number


@dataclass
class FeatureMaps(Method):
    """Keep activations near those of the source, all channels alike.

    Args:
        strength: At least 0.
        layers: "stages" for the output of every stage, or a name or names of layers.
        reduction: "batchmean", which does not change with the size of a batch, its micro-batches or the number of devices, or
            "sum" over the batch, as published.

    Raises:
        ValueError: For an argument out of range or an unknown layer.
    """

    strength: float = 0.64
    layers: str | tuple[str, ...] = "stages"
    reduction: Literal["sum", "batchmean"] = "batchmean"

    paper: ClassVar[str] = "Romero et al. (FitNets), ICLR 2015, arXiv 1412.6550"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}

    def __post_init__(self) -> None:
        check_number("feature_maps", "strength", self.strength)
        check_layers("feature_maps", self.layers)
        check_choice("feature_maps", "reduction", self.reduction, REDUCTIONS)
        self.uses_source = self.strength > 0

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers."""
        if self.uses_source:
            self._net = net
            self.taps = self.source_taps = find_layers(net, source, self.layers, self.name)

    def penalty(self, batch: Batch) -> Tensor | None:
        """strength/2 * the squared distance of all activations."""
        if not self.uses_source:
            return None
        distances = [(mine - theirs).square().sum() for mine, theirs in paired(batch, self.taps, self._net, self.name)]
        share = len(batch.inputs) if self.reduction == "batchmean" else 1
        return 0.5 * self.strength / share * torch.stack(distances).sum()
