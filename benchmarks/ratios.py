"""How much more one thing costs than another, both measured in turn in one process."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

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


def in_turn(one: Work, other: Work, pairs: int, clock: Callable[[], float] = time.process_time) -> Ratio:
    """Cost of `one` over that of `other`.

    A pair is one call of each, so that both meet the same state of the machine; every second pair begins with the other one. The first calls,
    which fill caches and choose kernels, do not count.

    Args:
        one: What is looked at.
        other: What it is compared with.
        pairs: At least 2.
        clock: Seconds; by default of this process's processor time, which other work on the machine distorts little.
    """
    found = []
    for number in range(WARM_UP + pairs):
        order = (one, other) if number % 2 else (other, one)
        spent = {work: _seconds(work, clock) for work in order}
        if number >= WARM_UP:
            found.append(spent[one] / spent[other])
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Ratio(median, low, high, pairs)


def _seconds(work: Work, clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began
