"""Zapping: the last layer is drawn anew again and again, so that the features learn to serve any fresh classifier.

Frati, Traft, Clune, Cheney: Reset It and Forget It: Relearning Last-Layer Weights Improves Continual and Transfer Learning, ECAI 2024
(arXiv 2310.07996). In training on shuffled data the layer is drawn every so many epochs, all of it or as many classes as told, chosen at
random; in training class by class, the weights of the class that comes next. Theirs is pre-training: what follows is a transfer to other
classes, with a new layer. Here the run itself must end with a trained layer, so that a share of it at the end is free of draws.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import nn

from rekindle.method import Clock, Net, Source, require
from rekindle.methods.restarts._draw import Masks, draw_where_, drawable, scale_of_a_head
from rekindle.methods.restarts._periods import Restarting
from rekindle.spec import Count, Share


@dataclass
class Zapping(Restarting):
    """Draw the last layer, or the part of some classes, at the start of every so many epochs; the learning rate goes on as it is.

    Args:
        every: Epochs between two draws, at least 1.
        classes: How many classes, chosen anew at each draw, have their weights and biases drawn; 0 is all.
        tail: Share of the run at its end without draws, from 0 (every epoch but the first, as in pre-training) to 1 (nothing happens).
        optimizer_state: "clear" or "keep" the optimiser's state of what is drawn; the authors keep it.

    Raises:
        ValueError: For an argument out of range, or a head that cannot be drawn.
    """

    every: Count = 1
    classes: Annotated[int, Ge(0)] = 0
    tail: Share = 0.5
    optimizer_state: Literal["clear", "keep"] = "clear"

    paper: ClassVar[str] = "Frati, Traft, Clune, Cheney, ECAI 2024, arXiv 2310.07996"
    neutral: ClassVar[dict[str, Any] | None] = {"tail": 1.0}

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers that give the logits."""
        super().attach(net, source)
        if self.happens:
            self._layers, self._width = last_layers(net)
            self._scale = scale_of_a_head(net.model)
            enough = self.classes <= self._width
            require(enough, f"zapping: classes must be at most the {self._width} of the head, found {self.classes}.")

    @property
    def happens(self) -> bool:
        """Unless the tail is the whole run."""
        return self.tail < 1

    def restarts(self, clock: Clock) -> list[int]:
        """Every so many epochs, up to the tail.

        Returns:
            Epochs above 0, ascending.
        """
        tail = max(1.0, self.tail * clock.epochs)
        return [epoch for epoch in range(self.every, clock.epochs, self.every) if clock.epochs - epoch >= tail]

    def change_(self, number: int, clock: Clock) -> list[tuple[nn.Module, Masks]]:
        """Draw the rows of the classes; the optimiser forgets them.

        Returns:
            The modules that were drawn, with the entries that changed.
        """
        stream = clock.generator(self.name)
        chosen = torch.randperm(self._width, generator=stream)[: self.classes] if self.classes else torch.arange(self._width)
        masks = [(layer, _rows(layer, chosen)) for layer in self._layers]
        draw_where_(masks, stream, self._scale)
        return masks


def last_layers(net: Net) -> tuple[list[nn.Module], int]:
    """The layers of the head that give the logits, two in a distilled network, and how many classes they tell apart.

    Returns:
        (layers, number of classes).
    """
    matrices = [part for part in drawable(net.head_modules()) if any(p.ndim > 1 for p in part.parameters(recurse=False))]
    require(bool(matrices), f"zapping: the head {list(net.head)} has no matrix of weights.")
    width = len(next(p for p in matrices[-1].parameters(recurse=False) if p.ndim > 1))
    return [part for part in matrices if any(len(p) == width for p in part.parameters(recurse=False) if p.ndim > 1)], width


def _rows(layer: nn.Module, chosen: torch.Tensor) -> Masks:
    """True for all that belongs to the chosen outputs of a layer."""
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in layer.named_parameters(recurse=False)}
    for mask in masks.values():
        mask[chosen] = True
    return masks
