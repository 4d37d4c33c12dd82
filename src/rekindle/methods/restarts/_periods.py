"""When a run restarts, and what every method that re-initialises does then.

Not methods themselves: a method derives from `Restarting` or `Generations`, and says what it changes.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn
from torch.optim import Optimizer

from rekindle.errors import number_of
from rekindle.method import Clock, Method, Net, Source, require
from rekindle.methods.restarts._draw import Masks, check_head, forget_, forget_where_
from rekindle.models.classifier import is_rectified
from rekindle.spec import Count

Shape = Literal["half", "full"]

ENOUGH_STEPS = 80
"""Optimiser steps after the last draw below which our own runs have stayed behind plain fine-tuning: with 60 where backbone and head had one
rate (docs/results/small_study). With a head at its own rate nothing was lost with 60 to 120 (docs/results/board) or 80 (rifle_factors)."""


def period_starts(length: int, periods: int, period: int = 0) -> list[int]:
    """First positions of the periods of a run of `length` epochs or steps.

    `periods` equal parts, the last of which takes the remainder; or, if `period` is given, a part every `period` positions
    as in RIFLE's Algorithm 1, the last of which may be cut short.
    """
    return list(range(0, length, period)) if period else [k * (length // periods) for k in range(periods)]


def cycle_factor(position: int, length: int, starts: list[int], period: int = 0, shape: Shape = "half") -> float:
    """Learning-rate factor inside the period that `position` falls in.

    "half" falls from 1 towards 0 (RIFLE's code); "full" is 1, 0, 1 (its Algorithm 1, line 14 as printed). Without `period`
    each cycle is stretched over the real length of its period.
    """
    start = max(first for first in starts if first <= position)
    end = min((first for first in starts if first > position), default=length)
    turns = 1.0 if shape == "half" else 2.0
    return 0.5 * (1 + math.cos(turns * math.pi * (position - start) / (period or end - start)))


def rectified_sentence(name: str) -> str:
    """What a method that draws heads says of a network whose logits end in a ReLU."""
    return (
        f"{name}: the network ends in a ReLU on its logits, under which a fresh draw has left classes that never learnt again "
        "(rekindle methods rifle); give --head-type linear."
    )


class Restarting(Method):
    """Changes weights at once, at the start of some epochs.

    Attributes:
        draws: Whether the head is drawn then, in whole or in part.
        optimizer_state: A field of the method: "clear" or "keep" the optimiser's state of what changes.
    """

    draws: ClassVar[bool] = True
    optimizer_state: Literal["clear", "keep"]

    def restarts(self, clock: Clock) -> list[int]:
        """Epochs before which weights change."""
        raise TypeError(f"{type(self).__name__} must define restarts(clock).")

    def change_(self, number: int, clock: Clock) -> list[tuple[nn.Module, Masks]] | None:
        """Change weights for the restart of that number, from 1; return what the optimiser may forget, None for everything."""
        raise TypeError(f"{type(self).__name__} must define change_(number, clock).")

    @property
    def happens(self) -> bool:
        """Whether the options ask for any restart."""
        return True

    @property
    def draws_head(self) -> bool:
        """Where a restart draws it, and there is one."""
        return self.draws and self.happens

    def attach(self, net: Net, source: Source) -> None:
        """Remember the network."""
        self._net = net
        if self.draws_head:
            check_head(self.name, net)

    def check(self) -> None:
        """Refuse, before the first step, what cannot be changed; all methods have attached by then."""

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Change weights in place where one is due, with one stream for every rank."""
        if self.happens and clock.global_step == 0:
            self.check()
        if clock.step > 0 or clock.epoch not in self.restarts(clock):
            return False
        changed = self.change_(self.restarts(clock).index(clock.epoch) + 1, clock)
        if self.optimizer_state == "clear":
            if changed is None:
                forget_(optimizer)
            else:
                forget_where_(optimizer, changed)
        return True

    def warnings(self, clock: Clock) -> list[str]:
        """Say so where too few steps follow the last restart, or what a fresh head gives is cut off by a ReLU."""
        starts, found = self.restarts(clock), []
        left = (clock.epochs - starts[-1]) * clock.steps_per_epoch if starts else ENOUGH_STEPS
        if left < ENOUGH_STEPS:
            found.append(
                f"{self.name}: the last restart leaves {number_of(left, 'step')}; below about {ENOUGH_STEPS} a fresh head has lost accuracy in our studies "
                f"where it had no learning rate of its own (rekindle methods rifle); give more --epochs, or restart less often."
            )
        if starts and self.draws and any(is_rectified(self._net.model, name) for name in self._net.head):
            found.append(rectified_sentence(self.name))
        return found


@dataclass
class Generations(Restarting):
    """Equal parts of the run, the last of which takes the remainder; see `LaterLayerForgetting` for the arguments."""

    generations: Count = 2
    cycle: Literal["all", "none"] = "all"
    optimizer_state: Literal["clear", "keep"] = "clear"

    @property
    def happens(self) -> bool:
        """Unless one generation is the whole run."""
        return self.generations > 1

    @property
    def redraws_backbone(self) -> bool:
        """Where there is more than one generation."""
        return self.happens

    def restarts(self, clock: Clock) -> list[int]:
        """The first epoch of each generation but the first."""
        return self._starts(clock)[1:]

    def lr_factor(self, group: str, clock: Clock) -> float | None:
        """A half cosine in each generation, for both groups; one generation leaves the rate to the run's schedule."""
        if self.cycle == "none" or not self.happens:
            return None
        return cycle_factor(clock.epoch, clock.epochs, self._starts(clock))

    def _starts(self, clock: Clock) -> list[int]:
        enough, epochs = self.generations <= clock.epochs, number_of(clock.epochs, "epoch")
        require(enough, f"{self.name}: generations must be at most the {epochs} of the run, found {self.generations}.")
        return period_starts(clock.epochs, self.generations)
