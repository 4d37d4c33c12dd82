"""Knowledge evolution: a part of every layer, always the same, is drawn anew in each generation; the other part evolves.

Taha, Shrivastava, Davis: Knowledge Evolution in Neural Networks, CVPR 2021 (arXiv 2103.05152), section 3.1 and Algorithm 1; KELS is
section 3.2. A binary mask M splits each convolution and linear layer into the fit hypothesis, M * W, and the reset hypothesis, (1 - M) *
W; at the start of a generation W <- M * W + (1 - M) * W_r with fresh W_r. KELS keeps the first ceil(s * C) filters and input channels (all
input channels of the first layer, all outputs of the last), so that the fit hypothesis is a slim network; WELS keeps weights at random.
BatchNorm is left alone. The authors train from random weights; so what a reset draws here, too, is a fresh initialisation, not the
source's weights.

Their code trains five generations of 200 epochs at a split rate of 0.5, each with a new optimiser, five epochs of warm-up and a cosine of
its own.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn

from rekindle.method import Clock, Net, Source, with_presets
from rekindle.methods.restarts._draw import Masks, check_layers, draw_where_, drawable, scale_of_a_head
from rekindle.methods.restarts._periods import Generations
from rekindle.rng import keyed_generator

COLOURS = 3


@with_presets
@dataclass
class KnowledgeEvolution(Generations):
    """Draw the reset part of each layer anew at the start of each generation but the first; the fit part keeps what it learnt.

    A weight cannot be shared in part: all stay *shared*, so that `l2_sp` pulls the drawn part, too, to the source.

    Args:
        generations: From 1 (nothing happens) to the number of epochs; 5 in the authors' code.
        cycle: "all" gives each generation a half cosine of the learning rate, for backbone and head; "none" leaves the run's own.
        optimizer_state: "clear" starts each generation with an optimiser that remembers nothing, as published; "keep" keeps its state.
        split: "kels" splits by filters and channels, "wels" by single weights at random.
        rate: s, the share that is kept, above 0 and below 1: of filters and of channels for "kels", of weights for "wels".
        preset: "paper_code" sets generations, cycle, optimizer_state, split and rate to the authors' defaults.

    Raises:
        ValueError: For an argument out of range, or layers that are frozen or tied.
    """

    split: Literal["kels", "wels"] = "kels"
    rate: Annotated[float, Interval(gt=0, lt=1)] = 0.8
    preset: Literal["paper_code"] | None = None

    paper: ClassVar[str] = "Taha, Shrivastava, Davis, CVPR 2021, arXiv 2103.05152"
    neutral: ClassVar[dict[str, Any] | None] = {"generations": 1}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper_code": {"generations": 5, "cycle": "all", "optimizer_state": "clear", "split": "kels", "rate": 0.5}
    }

    @property
    def changes_backbone(self) -> bool:
        """A part of each layer."""
        return self.happens

    def attach(self, net: Net, source: Source) -> None:
        """Split each layer."""
        super().attach(net, source)
        names = {id(module): name for name, module in net.model.named_modules()}
        inside = {id(part) for module in net.head_modules() for part in module.modules()}
        self._body: list[tuple[nn.Module, Masks]] = []
        self._head: list[tuple[nn.Module, Masks]] = []
        for layer in drawable([net.model]):
            if _matrix(layer) is not None:
                masks = self._masks(layer, id(layer) in inside, keyed_generator(net.seed, self.name, names[id(layer)]))
                (self._head if id(layer) in inside else self._body).append((layer, masks))

    def check(self) -> None:
        """Refuse layers that are tied to others; those that are frozen are left alone."""
        check_layers(self.name, self._net, [layer for layer, _ in self._trained()])

    def change_(self, number: int, clock: Clock) -> None:
        """Draw the reset parts of the backbone, then the head's; the optimiser forgets everything."""
        stream = clock.generator(self.name)
        draw_where_(self._trained(), stream)
        draw_where_(self._head, stream, scale_of_a_head(self._net.model))

    def _trained(self) -> list[tuple[nn.Module, Masks]]:
        return [pair for pair in self._body if all(p.requires_grad for p in pair[0].parameters(recurse=False))]

    def _masks(self, layer: nn.Module, last: bool, key: torch.Generator) -> Masks:
        """True where a layer's parameters are drawn."""
        own = dict(layer.named_parameters(recurse=False))
        if self.split == "wels":
            return {name: torch.rand(p.shape, generator=key) >= self.rate for name, p in own.items()}
        weight = _matrix(layer)
        assert weight is not None
        rows = len(weight) if last else math.ceil(self.rate * len(weight))
        return {name: _outside(p, rows, self.rate) for name, p in own.items() if len(p) == len(weight)}


def _matrix(layer: nn.Module) -> Tensor | None:
    """The first kernel or matrix of a layer; None for a normalisation."""
    return next((p for p in layer.parameters(recurse=False) if p.ndim > 1), None)


def _outside(parameter: Tensor, rows: int, rate: float) -> Tensor:
    """True but for the first rows and, in a matrix, the first columns; all columns where they are the three colours of a picture."""
    mask = torch.ones(parameter.shape, dtype=torch.bool)
    if parameter.ndim == 1:
        mask[:rows] = False
    else:
        columns = parameter.shape[1]
        mask[:rows, : columns if columns == COLOURS else math.ceil(rate * columns)] = False
    return mask
