"""How long a run takes: its work counted in pictures, and the pace at which the machine does it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from rekindle.fitting.wise_ft import GRID
from rekindle.spec import RunSpec

EVALUATION = 1 / 3  # Work of looking at a picture, in that of training on it.
KNOWN = 1000  # Pictures at most, of training and of validation, that strangers are told by.
CHECKING = 0.25  # Work of looking at validation pictures after an epoch, in that of the epoch, where they choose nothing.
LEAST_CHECKED = 64
DRAWN, UNDRAWN = 5.0, 1.5  # Seconds that the end of a run takes beside looking at pictures: with its own pictures and page, and without.


@dataclass(frozen=True)
class Workload:
    """How many pictures a run looks at. Seconds are for training on a picture; looking at one takes `EVALUATION` of them.

    Attributes:
        train: Trained on in an epoch.
        checked: Looked at after each epoch.
        measured: Looked at when training has ended.
        known: Whose features are kept then, in a run that draws pictures.
        drawn: Whether the run draws pictures for its page.
        averaged: Looked at for weights that are means of others.
        cost: Of a step with its methods, in that of a plain one.
    """

    train: int
    checked: int
    measured: int
    known: int
    averaged: int = 0
    drawn: bool = True
    cost: float = 1.0

    @classmethod
    def of(cls, spec: RunSpec, counts: Mapping[str, int], drawn: bool = True, cost: float = 1.0) -> Self:
        """That of a run with so many pictures in each split: {"train": 80, "val": 20, "test": 40}."""
        splits = dict(counts) if spec.test else {name: count for name, count in counts.items() if name != "test"}
        return cls(
            train=counts["train"],
            checked=checked_count(spec, counts["train"], counts.get("val", 0)) + (counts["test"] if spec.test_every_epoch else 0),
            measured=sum(count for name, count in splits.items() if name != "train"),
            averaged=_averaging(spec, counts),
            known=sum(min(KNOWN, count) for name, count in splits.items() if name != "test") if drawn else 0,
            drawn=drawn,
            cost=cost,
        )

    def epoch(self, seconds: float) -> float:
        """Seconds of an epoch."""
        return seconds * (self.cost * self.train + EVALUATION * self.checked)

    def ending(self, seconds: float) -> float:
        """Seconds from the last epoch to the report."""
        return (DRAWN if self.drawn else UNDRAWN) + seconds * EVALUATION * (2 * self.measured + self.known + self.averaged)

    def beside_training(self, epochs: int, seconds: float) -> float:
        """Seconds that a run with so many epochs to go takes beside training."""
        return epochs * seconds * EVALUATION * self.checked + self.ending(seconds)


def _averaging(spec: RunSpec, counts: Mapping[str, int]) -> int:
    """Pictures that are looked at for weights that are means: validation for each mixture, training pictures for statistics of BatchNorm."""
    if spec.keep == "mix":
        return len(GRID) * counts.get("val", 0)
    return counts["train"] if spec.keep == "average" else 0


def checked_count(spec: RunSpec, train: int, val: int) -> int:
    """How many of `val` validation pictures are measured after each epoch: all that choose something, else no more than training's pace allows."""
    if spec.keep == "best" or spec.patience is not None or spec.defaults == "0.1":
        return val
    return min(val, max(LEAST_CHECKED, int(CHECKING * train / EVALUATION)))


class Stopwatch:
    """Passes progress on, and measures the pace of looking at pictures by it; the first batch of a pass, which warms up, does not count."""

    def __init__(self, progress: Callable[[str, int, int], object]) -> None:
        self._progress, self._pictures, self._elapsed = progress, 0, 0.0
        self._before: tuple[int, float] | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take the time."""
        now = time.perf_counter()
        if self._before is not None and done > self._before[0]:
            self._pictures, self._elapsed = self._pictures + done - self._before[0], self._elapsed + now - self._before[1]
        self._before = None if done == total else (done, now)
        self._progress(what, done, total)

    @property
    def seconds(self) -> float | None:
        """For training on a picture, as far as looking at pictures tells; None where too few were seen."""
        return self._elapsed / self._pictures / EVALUATION if self._pictures else None
