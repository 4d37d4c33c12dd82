"""Cyclic learning rate: half-cosine cycles on every parameter, without re-initialisation.

After Smith: Cyclical Learning Rates for Training Neural Networks, WACV 2017 (arXiv 1506.01186); a comparison method of Li et
al., RIFLE, ICML 2020 (arXiv 2007.03349), Table 1, with 2, 3 or 4 cycles. Smith's cycles are triangles. RIFLE prints no formula
for this method; half cosines with warm restarts, as for the head in its authors' code, are inferred from that code.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from rekindle.errors import number_of
from rekindle.method import Clock, Method, require
from rekindle.methods.restarts.rifle import cycle_factor, period_starts
from rekindle.spec import Count


@dataclass
class CyclicLR(Method):
    """Restart the learning rate of every parameter at equal intervals; each cycle is a half cosine from the base rate to 0.

    Args:
        cycles: K, from 1 (nothing happens) to the number of epochs.
        trim: Shorten the run to K * (E // K) epochs; without it the last cycle takes the remainder.

    Raises:
        ValueError: For an argument out of range.
    """

    cycles: Count = 2
    trim: bool = False

    paper: ClassVar[str] = "Smith, WACV 2017, arXiv 1506.01186; Li et al., ICML 2020, arXiv 2007.03349"
    neutral: ClassVar[dict[str, Any] | None] = {"cycles": 1}

    def run_epochs(self, epochs: int) -> int:
        """K * (E // K) with `trim`; E without."""
        require(
            self.cycles <= epochs, f"cyclic_lr: cycles must be at most the {number_of(epochs, 'epoch')} of the run, found {self.cycles}."
        )
        return self.cycles * (epochs // self.cycles) if self.trim else epochs

    def lr_factor(self, group: str, clock: Clock) -> float | None:
        """The same factor for both groups, constant inside an epoch; a single cycle leaves the rate to the run's schedule."""
        if self.cycles == 1:
            return None
        return cycle_factor(clock.epoch, clock.epochs, period_starts(clock.epochs, self.cycles))
