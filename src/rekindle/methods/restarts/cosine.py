"""Cosine decay of the learning rate: 1/2 * (1 + cos(pi * e / E)) in epoch e of E, constant inside an epoch.

Loshchilov and Hutter, SGDR, ICLR 2017 (arXiv 1608.03983), equation 5, without restarts; by epoch as in the RIFLE paper.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from rekindle.method import Clock, Method


def half_cosine(position: float, length: float) -> float:
    """Fall from 1 at position 0 to 0 at position `length`."""
    return 0.5 * (1 + math.cos(math.pi * position / length))


@dataclass
class Cosine(Method):
    """One half-cosine over the whole run, for the backbone and the head. It is what a group gets that no method claims."""

    paper: ClassVar[str] = "Loshchilov and Hutter, SGDR, ICLR 2017, arXiv 1608.03983"
    neutral: ClassVar[dict[str, Any]] = {}

    def lr_factor(self, group: str, clock: Clock) -> float:
        """The same factor for both groups."""
        return half_cosine(clock.epoch, clock.epochs)
