"""The epochs of a run as an aligned table that grows line by line, in less than 80 columns. It loads no torch."""

from typing import Any

TRAIN = ("epoch", "train loss", "train %")
VALIDATION = ("val loss", "val %")
SPEED = ("pictures/s",)
BEST, FRESH = "best so far", "new head"


class EpochTable:
    """Makes lines of epochs' records; a run's first line has the names of the columns above it.

    The mark of the best validation accuracy follows the rule of `keep="best"`: no epoch right after a restart, and of equals the first.
    A run that was resumed has no marks, since nobody told of its first epochs.
    """

    def __init__(self) -> None:
        self._open, self._next, self._best = False, 0, -1.0

    def interrupt(self) -> None:
        """Something else was printed: the next line has the names of the columns above it again."""
        self._open = False

    def lines(self, record: dict[str, Any]) -> list[str]:
        """What to print after an epoch: its line of metrics.jsonl in columns, and their names where it is the first of a run.

        Returns:
            One line or two.
        """
        follows = self._open and record["epoch"] == self._next
        if record["epoch"] == 0:
            self._best = -1.0
        elif record["epoch"] != self._next:
            self._best = 1.0  # Earlier epochs are unknown, and one of them may be the best.
        self._open, self._next = True, record["epoch"] + 1
        header = _header(record)
        cells = [cell.rjust(len(name)) for name, cell in zip(header, _cells(record), strict=True)]
        line = "  ".join([*cells, *self._marks(record)])
        return [line] if follows else ["  ".join(header), line]

    def _marks(self, record: dict[str, Any]) -> list[str]:
        marks = [FRESH] if record["restarted"] else []
        if "val" in record and not record["restarted"] and record["val"]["accuracy"] > self._best:
            self._best = record["val"]["accuracy"]
            marks.append(BEST)
        return marks


def _header(record: dict[str, Any]) -> tuple[str, ...]:
    return (*TRAIN, *(VALIDATION if "val" in record else ()), *SPEED)


def _cells(record: dict[str, Any]) -> list[str]:
    measured = [record[split] for split in ("train", "val") if split in record]
    figures = [cell for one in measured for cell in (f"{one['loss']:.3f}", f"{100 * one['accuracy']:.1f}")]
    return [str(record["epoch"] + 1), *figures, f"{record['timing']['images_per_second']:.0f}"]
