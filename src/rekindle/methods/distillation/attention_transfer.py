"""Keep where the source looks: distance of normalised spatial attention maps.

Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017 (arXiv 1612.03928), section 3.1. q = v / ||v||_2 with
v = the mean over channels of squared activations, one number a position. The paper's loss is beta/2 * ||q_s - q_t||_2; the
authors' code takes beta times the mean over batch and positions of (q_s - q_t)^2, with beta 1000, which is the default here.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rekindle.method import Batch, Method, Net, Source
from rekindle.methods._math import safe_divide
from rekindle.methods.distillation._layers import Layers, find_layers, paired
from rekindle.spec import NonNegative

Form = Literal["mean_square", "norm"]


@dataclass
class AttentionTransfer(Method):
    """Keep the spatial attention of each stage, the energy of activations by position, as it is in the source.

    Args:
        beta: Strength, at least 0.
        form: "mean_square", as the authors' code, or "norm", beta/2 times the norm of the difference, as the paper prints.
        layers: "stages" for the output of every stage, or a name or names of layers. Outputs without positions have one
            attention map only, so they add nothing.

    Raises:
        ValueError: For an argument out of range or an unknown layer.
    """

    beta: NonNegative = 1e3
    form: Form = "mean_square"
    layers: Layers = "stages"

    paper: ClassVar[str] = "Zagoruyko, Komodakis, ICLR 2017, arXiv 1612.03928"
    neutral: ClassVar[dict[str, Any]] = {"beta": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.uses_source = self.beta > 0

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers."""
        if self.uses_source:
            self._net = net
            self.hook_layers = self.source_hook_layers = find_layers(net, source, self.layers, self.name)

    def penalty(self, batch: Batch) -> Tensor | None:
        """Sum over layers of the distance of attention maps."""
        if not self.uses_source:
            return None
        pairs = paired(batch, self.hook_layers, self._net, self.name)
        distances = [attention_distance(attention(mine), attention(theirs), self.form) for mine, theirs in pairs]
        return self.beta * torch.stack(distances).sum()


def attention(activation: Tensor) -> Tensor:
    """(B, C, P) to (B, P): mean square over channels, at length 1 a sample; 0 where all is 0.

    Returns:
        (B, P) maps of length 1, or 0.
    """
    energy = activation.square().mean(1)
    return safe_divide(energy, torch.linalg.vector_norm(energy, dim=1, keepdim=True))


def attention_distance(ours: Tensor, theirs: Tensor, form: Form) -> Tensor:
    """Distance of (B, P) maps: the mean of squares, or half the norm of the difference, averaged over the batch.

    Returns:
        A scalar with its graph.
    """
    difference = ours - theirs
    if form == "mean_square":
        return difference.square().mean()
    lengths: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return 0.5 * lengths.mean()
