"""Stochastic weight averaging: the mean of the weights after each of the last quarter of the epochs, at a rate that stays as it is then.

Izmailov, Podoprikhin, Garipov, Vetrov, Wilson: Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018
(arXiv 1803.05407), Algorithm 1 with a constant rate and c = an epoch: the first three quarters of the budget train as usual. BatchNorm's
statistics are taken anew for the mean, section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rekindle.method import Clock
from rekindle.methods.restarts.cosine import Cosine, half_cosine

SHARE, LEAST = 4, 2  # One epoch in four is averaged, and at least two.


def first_averaged(epochs: int) -> int:
    """The first epoch, from 0, whose weights count.

    Returns:
        The start of the last quarter, or of the last two epochs where those are more; 0 for a run of one.
    """
    return max(0, epochs - max(LEAST, epochs // SHARE))


@dataclass
class HeldCosine(Cosine):
    """The run's cosine up to the first epoch that is averaged, and from there on the rate that it had then."""

    def lr_factor(self, group: str, clock: Clock) -> float:
        """The same factor for both groups."""
        held = half_cosine(min(clock.epoch, first_averaged(clock.epochs)), clock.epochs)
        return super().lr_factor(group, clock) * held / half_cosine(clock.epoch, clock.epochs)


def not_held(owners: Mapping[str, str]) -> list[str]:
    """What to say where methods set learning rates that the mean wants to stay.

    Args:
        owners: {"backbone" or "head": name of the method that sets its rate}, without those that none sets.

    Returns:
        A sentence for each method; none where the rates stay.
    """
    return [
        f"--keep average holds learning rates over the last quarter of the epochs, but {name} sets that of the "
        f"{' and the '.join(group for group in owners if owners[group] == name)}, which may change to the end, as it does not in SWA."
        for name in dict.fromkeys(owners.values())
    ]


@dataclass
class EpochMean:
    """The mean of state dicts, added up in float64 on the processor.

    Attributes:
        count: How many there were.
        total: Their sum; of what is no floating-point number, such as a count, the newest.
    """

    count: int = 0
    total: dict[str, Tensor] = field(default_factory=dict)

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of an epoch in."""
        for name, value in weights.items():
            if not value.is_floating_point():
                self.total[name] = value.cpu().clone()
            elif name in self.total:
                self.total[name] += value.cpu().double()
            else:
                self.total[name] = value.cpu().double()
        self.count += 1

    def begin_anew(self) -> None:
        """Forget what came before, as after a restart, whose head belongs to other features."""
        self.count, self.total = 0, {}

    def weights(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean, in the formats of `like`.

        Returns:
            A state dict.
        """
        return {
            name: (value / self.count).to(like[name].dtype) if value.is_floating_point() else value for name, value in self.total.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint.

        Returns:
            Plain values and tensors.
        """
        return {"count": self.count, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.count, self.total = state["count"], dict(state["total"])
