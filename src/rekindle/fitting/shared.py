"""What several runs have in common: those of a search, and those on the same pictures and weights in one process, as in a study."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from rekindle.fitting.look import Look

MOST = 4  # Looks that a process keeps, of some 30 MB each at the most.


@dataclass
class Shared:
    """What the runs of a search have in common.

    Attributes:
        look: At the features, by the first run.
        pace: Seconds that training on a picture takes, by the look; None where it was not timed.
        answers: Probabilities that the linear probe gave the pictures of a split, by its name; None where features overflow there.
        batchnorm: The statistics that were found to suit.
        start: Checkpoints of a run that differs in nothing but that it did not read the test split; it is gone on from there.
        tried: What a search tried, for the report.
        trial: Whether the run is but a trial, whose cautions concern nobody, and which draws nothing.
    """

    look: Look | None = None
    pace: float | None = None
    answers: dict[str, Tensor | None] = field(default_factory=dict)
    batchnorm: str = ""
    start: Path | None = None
    tried: list[dict[str, Any]] = field(default_factory=list)
    trial: bool = False

    def seen(self) -> "Shared":
        """What was seen of pictures and pre-trained weights alone, for another run on them."""
        return Shared(look=self.look, pace=self.pace, answers=self.answers, batchnorm=self.batchnorm)


_seen: OrderedDict[str, Shared] = OrderedDict()


def recall(key: str) -> Shared:
    """What an earlier run of this process saw, or nothing yet.

    Args:
        key: Of all that a look depends on: the pictures by content and split, the weights, preprocessing, seed, device.
    """
    return _seen[key].seen() if key in _seen else Shared()


def remember(key: str, shared: Shared) -> None:
    """Keep what a run saw; of more than `MOST`, that of longest ago is forgotten."""
    if shared.look is None:
        return
    _seen[key] = shared.seen()
    _seen.move_to_end(key)
    while len(_seen) > MOST:
        _seen.popitem(last=False)
