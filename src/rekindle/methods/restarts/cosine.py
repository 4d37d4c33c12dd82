"""Cosine decay of the learning rate: 1/2 * (1 + cos(pi * e / E)) in epoch e of E, constant inside an epoch.

Loshchilov and Hutter, SGDR, ICLR 2017 (arXiv 1608.03983), equation 5, without restarts; by epoch as in the RIFLE paper. The warm-up is
that of Goyal et al. (arXiv 1706.02677), section 2.2: step by step from nearly 0.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from rekindle.method import Clock, Method


def half_cosine(position: float, length: float) -> float:
    """Fall from 1 at position 0 to 0 at position `length`.

    Returns:
        A factor from 0 to 1.

    Examples:
        >>> half_cosine(0, 10), round(half_cosine(5, 10), 3)
        (1.0, 0.5)
    """
    return 0.5 * (1 + math.cos(math.pi * position / length))


@dataclass
class Cosine(Method):
    """One half-cosine over the whole run, for the backbone and the head. It is what a group gets that no method claims.

    Args:
        warmup: Share of the run's steps in which the rate rises, from 0 to below 1: factors 1/n, 2/n, ... of the cosine's.
    """

    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    paper: ClassVar[str] = "Loshchilov and Hutter, SGDR, ICLR 2017, arXiv 1608.03983"
    neutral: ClassVar[dict[str, Any]] = {}

    def lr_factor(self, group: str, clock: Clock) -> float:
        """The same factor for both groups."""
        rising = round(self.warmup * clock.epochs * clock.steps_per_epoch)
        return half_cosine(clock.epoch, clock.epochs) * (min(1.0, (clock.global_step + 1) / rising) if rising else 1.0)
