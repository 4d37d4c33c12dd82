"""DELTA: keep the source's activations, each channel as far as the target task needs it.

Li, Xiong, Wang, Rao, Liu, Chen, Huan: DELTA: Deep Learning Transfer using Feature Map with Attention for Convolutional
Networks, ICLR 2019 (arXiv 1901.09229), section 3:

    alpha/2 * sum over samples, layers, channels of (C_l * a_c) * ||F_s,c - F_t,c||^2 / (H * W)  +  beta/2 * ||w_new||^2

a is a softmax over a layer's channels of their standardised importance (see `importance`) divided by 5, as in the authors' code;
times the number of channels C_l its mean is 1. The published sum over the batch with alpha 0.01 is tied to batches of 64 and to the size of a
network's activations; by default each sample's distance is divided by that of the source's activation from zero.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rekindle.method import Batch, Clock, DataPasses, GradientPairs, Method, Net, Source, require
from rekindle.methods.distillation._importance import channel_importance, draw_batches, fit_heads, swapped_weights
from rekindle.methods.distillation._layers import Layers, Reduction, find_layers, paired, relative
from rekindle.methods.penalties._pull import Pull
from rekindle.spec import Count, NonNegative

SOFTENING = 5.0


@dataclass
class DELTA(Method):
    """Keep activations near those of the source, channels that the target task needs above all (DELTA).

    With "attention" a preparation measures each channel's importance: one run of the part of the network behind it for each
    channel and batch, thousands in a large network.

    Args:
        alpha: Strength on activations, at least 0.
        beta: Strength on new parameters, towards zero, at least 0.
        weights: "attention", by importance, or "uniform".
        layers: "stages" for the output of every stage, or a name or names of layers.
        reduction: "relative" divides each sample's distance by the squared length of the source's activation (over positions, as
            the distance) and takes the mean over the batch; "batchmean" takes the mean alone; "sum" is the sum over the batch, as
            published, which changes with the size of a batch, its micro-batches and the number of devices.
        batches: Batches that importance is averaged over, at least 1.

    Raises:
        ValueError: For an argument out of range or an unknown layer.
    """

    alpha: NonNegative = 1.0
    beta: NonNegative = 0.01
    weights: Literal["attention", "uniform"] = "attention"
    layers: Layers = "stages"
    reduction: Reduction = "relative"
    batches: Count = 4

    paper: ClassVar[str] = "Li et al., ICLR 2019, arXiv 1901.09229"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "beta": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_source = self.alpha > 0
        self._weights: dict[str, Tensor] = {}

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers, and the new parameters."""
        self._net = net
        self._new = Pull(list(net.decayed(net.new()).values()), None, self.beta)
        if self.uses_source:
            self.hook_layers = self.source_hook_layers = find_layers(net, source, self.layers, self.name)

    def prepare(self, data: DataPasses) -> None:
        """Measure importance under a head fitted for it; the network and its own head stay as they are."""
        if not self.uses_source or self.weights == "uniform":
            return
        heads, samples = fit_heads(self._net, data)
        batches = draw_batches(self._net, data, self.batches, samples)
        with swapped_weights(self._net.model, heads):
            found = channel_importance(self._net, self.hook_layers, batches, data)
        self._weights = {layer: channel_weights(importance) for layer, importance in found.items()}

    def penalty(self, batch: Batch) -> Tensor | None:
        """alpha/2 * the weighted squared distance of activations, divided by positions and reduced."""
        if not self.uses_source:
            return None
        pairs = zip(self.hook_layers, paired(batch, self.hook_layers, self._net, self.name), strict=True)
        distances = [self._distance(layer, mine, theirs) for layer, (mine, theirs) in pairs]
        return 0.5 * self.alpha * torch.stack(distances).sum()

    def gradient(self, clock: Clock) -> GradientPairs:
        """beta * w on new parameters."""
        return self._new.gradient()

    def value(self, clock: Clock) -> Tensor:
        """beta/2 * ||w||^2 of new parameters."""
        return self._new.value()

    def state_dict(self) -> dict[str, Any]:
        """The weights of channels, by layer."""
        return {"weights": dict(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the weights back; they move to where the activations are when they are first used."""
        self._weights = {layer: weights.clone() for layer, weights in state["weights"].items()}

    def _distance(self, layer: str, mine: Tensor, theirs: Tensor) -> Tensor:
        channels = (mine - theirs).square().sum(2)
        if self.weights == "attention":
            require(
                layer in self._weights, f"delta: the channels of {layer} have no weights yet; call tuner.prepare(pass_over_data) first."
            )
            self._weights[layer] = weights = self._weights[layer].to(channels)
            channels = len(weights) * weights * channels
        each = channels.sum(1)
        if self.reduction == "relative":
            return relative(each, theirs).mean()
        each = each / mine.shape[2]
        return each.sum() if self.reduction == "sum" else each.mean()


def channel_weights(importance: Tensor) -> Tensor:
    """(C,) importance to (C,) weights of sum 1: a softmax of importance, standardised by the population and divided by 5.

    Returns:
        (C,) weights of sum 1.

    Examples:
        >>> import torch
        >>> float(channel_weights(torch.tensor([1.0, 2.0, 3.0])).sum())
        1.0
    """
    spread = importance.std(correction=0)
    if not spread > 0:  # All channels count alike.
        return torch.full_like(importance, 1 / len(importance))
    return torch.softmax((importance - importance.mean()) / spread / SOFTENING, 0)
