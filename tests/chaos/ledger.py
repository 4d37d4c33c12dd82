"""What the chaos run counts: how often a fault was done, what was lost by it, and what was said."""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "build" / "chaos"
COUNTS, COSTS = FOLDER / "counts", FOLDER / "digests.json"


@dataclass
class Tally:
    """Counts of one fault.

    Attributes:
        fault: The fault, in words.
        seed: What its places and moments are drawn from.
        times: How often it was done.
        lost: How often something was lost, or anything but a sentence came out.
        losses: A line for each of these, or each kind.
        said: How often each kind of sentence was said.
        seconds: What it took.
    """

    fault: str
    seed: int
    times: int = 0
    lost: int = 0
    losses: list[str] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, said: str = "", *, times: int = 1) -> None:
        """Count a fault that lost nothing."""
        self.times += times
        if said:
            self.said[without_places(said)] += times

    def lose(self, what: str, *, times: int = 1) -> None:
        """Count a fault that lost something, and say what."""
        self.times += times
        self.lost += times
        self.losses.append(without_places(what))


def without_places(text: str) -> str:
    """A text without the folders in which it happened to be said."""
    return re.sub(r"(?<![\w.])/(?:[^\s/:;,'\"]+/)+", "…/", text)


@contextmanager
def counted(fault: str, seed: int) -> Iterator[Tally]:
    """Count in a block, leave the counts for the page, and fail if anything was lost."""
    tally, began = Tally(fault, seed), time.monotonic()
    try:
        yield tally
    finally:
        tally.seconds = time.monotonic() - began
        COUNTS.mkdir(parents=True, exist_ok=True)
        (COUNTS / f"{uuid.uuid4().hex}.json").write_text(json.dumps(vars(tally)), "utf-8")
    assert tally.times and not tally.lost, tally.losses[:5]


def read_all(folder: Path = COUNTS) -> list[Tally]:
    """What the last run counted, the parts of one fault put together."""
    found: dict[str, Tally] = {}
    for path in sorted(folder.glob("*.json")):
        part = Tally(**json.loads(path.read_text("utf-8")))
        whole = found.setdefault(part.fault, Tally(part.fault, part.seed))
        whole.times += part.times
        whole.lost += part.lost
        whole.losses += part.losses
        whole.said += Counter(part.said)
        whole.seconds += part.seconds
    return [found[fault] for fault in sorted(found)]
