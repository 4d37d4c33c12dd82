"""Trainable projected gradient: each tensor is projected into a ball around its start, whose radius is learnt on held-out pictures.

Tian, Dai, Ma, He, Liu, Kira: Trainable Projected Gradient Method for Robust Fine-tuning, CVPR 2023 (arXiv 2303.10720). The weights
v minimise the loss of the training pictures; the radii gamma minimise that of other pictures at the projected weights,

    min over gamma of  L_held_out(w0 + min(1, gamma / length(v - w0)) * (v - w0)),

by a few iterations of Adam (projection update), after which the weights become the projected ones (projection); the authors' code gives
section 3.3 for both. On the pictures that the weights are trained on, wider would nearly always be better, and the radii would hold
nothing back. `ftp` is its fast form, without held-out pictures.

The authors take the validation pictures, which also choose the epoch. Here those choose alone, so that what is measured on them is
not flattered: `rekindle.fit` takes a share of the training pictures away, and other loops give pictures of their own.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from rekindle.method import Clock, DataPasses, Net, PassOverData, Source, require
from rekindle.methods._math import wide
from rekindle.methods.anchors._held import HeldWeights
from rekindle.methods.anchors._radius import Norm, RadiusAdam, lengths, shares, slope
from rekindle.methods.penalties._pull import Scope
from rekindle.models.structure import logits
from rekindle.spec import Count, Positive


@dataclass
class TPGM(HeldWeights):
    """Hold each tensor in a ball around its start whose radius is trained on held-out pictures.

    Args:
        norm: Length of a distance: "mars", the maximum absolute row sum, or "l2"; both are published.
        every: Optimiser steps from one update of the radii, with its projection, to the next, at least 1, the published one; the last
            step of an epoch always has one, so that what is measured after it is projected.
        iterations: Steps of Adam on the radii in an update, each on a held-out batch, at least 1; published are 1 in each step, and 200
            after the last.
        radius_lr: Step of Adam on the radii, above 0; published is 0.01.
        held_out: Share of the training pictures that `rekindle.fit` leaves out of training, above 0 and below 1. A loop of your own leaves
            out what it likes, and gives it to `tuner.prepare`.
        scope: "all", as published, or "weights" for tensors with two or more dimensions.

    Raises:
        ValueError: If an argument is out of range, the network shares nothing with its source, or there are no held-out pictures.
    """

    norm: Norm = "mars"
    every: Count = 1
    iterations: Count = 1
    radius_lr: Positive = 0.01
    held_out: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    scope: Scope = "all"

    name: ClassVar[str] = "tpgm"
    paper: ClassVar[str] = "Tian, Dai, Ma, He, Liu, Kira, CVPR 2023, arXiv 2303.10720"
    neutral: ClassVar[dict[str, Any] | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._pass: PassOverData | None = None
        self._stream: Iterator[tuple[Tensor, Tensor]] | None = None  # Batches of the running pass; a copy begins one of its own.

    def step_cost(self, steps_per_epoch: int) -> float:
        """Each iteration is a pass over a held-out batch, and an epoch's last step has an update."""
        return 1 + self.iterations / min(self.every, steps_per_epoch)

    def attach(self, net: Net, source: Source) -> None:
        """Take the anchors; no tensor has a ball yet."""
        super().attach(net, source)
        self._model = net.model
        self._radii: dict[str, RadiusAdam] = {}
        self._place = 0  # Batches of the running pass that updates have had.

    def keep_data(self, data: DataPasses) -> None:
        """Hold on to the passes over held-out pictures."""
        require(
            data.held_out is not None,
            "tpgm: radii are learnt on pictures that training leaves out: give tuner.prepare(), or the callback's data=, "
            "rekindle.DataPasses(training, held_out=others), each a function that makes one pass.",
        )
        self._pass, self._stream = data.held_out, None

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        """Where an update is due, train the radii, then project."""
        last = clock.step + 1 == clock.steps_per_epoch
        names = list(self._moving()) if last or (clock.step + 1) % self.every == 0 else []
        if not names:
            return
        distances = dict(zip(names, self._distances(names), strict=True))
        sizes = {name: lengths(distance, self.norm) for name, distance in distances.items()}
        for name, length in sizes.items():
            # As the authors' code: half of the shortest row's length, when a tensor is first seen.
            self._radii.setdefault(name, RadiusAdam(length.min() / 2))
        self._stream = self._stream or self._batches()
        with _evaluating(self._model):
            for x, y in itertools.islice(self._stream, self.iterations):
                self._project_(distances, sizes)
                self._step_radii(self._gradients(names, x, y), distances, sizes)
        self._agree(names)
        self._project_(distances, sizes)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out batches without end; its first pass begins where the last update before a resume stopped."""
        assert self._pass is not None
        while True:
            for batch in itertools.islice(self._pass(), self._place, None):
                self._place += 1
                yield batch
            require(self._place > 0, "tpgm: there are no held-out pictures; let the pass in DataPasses(held_out=...) yield some.")
            self._place = 0

    def _project_(self, distances: dict[str, Tensor], sizes: dict[str, Tensor]) -> None:
        """Write w0 + min(1, gamma / length) * (v - w0) into the parameters, the radii bounded by the lengths that there are."""
        for name, distance in distances.items():
            self._radii[name].bound(sizes[name])
            self._parameters[name].copy_(self._anchors[name] + shares(self._radii[name].radius, sizes[name]) * distance)

    def _gradients(self, names: list[str], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Of a held-out batch's cross-entropy by the projected weights; what the batch does not reach is left out."""
        with torch.enable_grad():
            loss = F.cross_entropy(logits(self._model(x)), y)
            found = torch.autograd.grad(loss, [self._parameters[name] for name in names], allow_unused=True)
        return {name: wide(gradient) for name, gradient in zip(names, found, strict=True) if gradient is not None}

    def _step_radii(self, gradients: dict[str, Tensor], distances: dict[str, Tensor], sizes: dict[str, Tensor]) -> None:
        """One step of Adam on the radius of each tensor."""
        for name, gradient in gradients.items():
            ball = self._radii[name]
            ball.step(slope_inside(gradient, distances[name], sizes[name], ball.radius), self.radius_lr)

    def _agree(self, names: list[str]) -> None:
        """Give every rank the first one's radii: BatchNorm's running statistics, and last bits, may differ between them."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        balls = [self._radii[name] for name in names]
        flat = torch.stack([value.double() for ball in balls for value in (ball.radius, ball.first, ball.second)])
        dist.broadcast(flat, src=0)
        for ball, (radius, first, second) in zip(balls, flat.view(-1, 3), strict=True):
            kind = ball.radius.dtype
            ball.radius, ball.first, ball.second = radius.to(kind), first.to(kind), second.to(kind)

    def __getstate__(self) -> dict[str, Any]:
        """All but the running pass, which cannot be copied."""
        return {**self.__dict__, "_stream": None}

    def state_dict(self) -> dict[str, Any]:
        """Anchors, radii with their moments, and the place in the pass over held-out pictures."""
        radii = {name: ball.state_dict() for name, ball in self._radii.items()}
        return {**super().state_dict(), "radii": radii, "place": self._place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._radii = {name: RadiusAdam.from_state(kept, self._anchors[name].device) for name, kept in state["radii"].items()}
        self._place = state["place"]
        self._stream = None


def slope_inside(gradient: Tensor, distance: Tensor, length: Tensor, radius: Tensor) -> Tensor:
    """d loss / d radius at the projected weights: the sum of <gradient, distance> / length over the rows that the ball holds back.

    A row that just touches the ball counts as held back, so that a ball as wide as its longest row can narrow again.

    Args:
        gradient: Of the loss at the projected weights.
        distance: v - w0, before the projection.
        length: Its `lengths`.
        radius: Of the ball.

    Returns:
        A scalar.
    """
    return slope(torch.where(length >= radius, gradient, 0.0), distance, length)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, and afterwards each module in its own: held-out pictures leave no trace in running statistics."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
