"""How much more one thing costs than another, both measured in turn in one process."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import now

Work = Callable[[], object]
WARM_UP = 2


@dataclass(frozen=True)
class Ratio:
    """The cost of one thing over that of another.

    Attributes:
        median: Over all pairs.
        low: First quartile.
        high: Third quartile.
        pairs: How many.
    """

    median: float
    low: float
    high: float
    pairs: int


def in_turn(one: Work, other: Work, pairs: int) -> Ratio:
    """Cost of `one` over that of `other`.

    A pair is one call of each, so that both meet the same state of the machine; every second pair begins with the other one. The first calls,
    which fill caches and choose kernels, do not count.

    Args:
        one: What is looked at.
        other: What it is compared with.
        pairs: At least 2.
    """
    found = []
    for number in range(WARM_UP + pairs):
        order = (one, other) if number % 2 else (other, one)
        spent = {work: _seconds(work) for work in order}
        if number >= WARM_UP:
            found.append(spent[one] / spent[other])
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Ratio(median, low, high, pairs)


def _seconds(work: Work) -> float:
    began = now()
    work()
    return now() - began
