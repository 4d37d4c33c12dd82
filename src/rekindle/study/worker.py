"""One cell done by whoever gets hold of it first."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rekindle.errors import Busy, Stopped, UserError, first_line
from rekindle.report.format import split_title
from rekindle.study.grid import Cell
from rekindle.study.store import Study

# Cell, folder for run folders, listener -> run folder. The engines take another one where a test does not want to train.
TrainCell = Callable[[Cell, Path, Any], Path]
EVERY = 1.0


def train(cell: Cell, runs: Path, listener: Any) -> Path:
    """Train a cell's run, or go on with it, or find it finished.

    Returns:
        The finished run's folder.
    """
    from rekindle.fitting.fit import fit_undrawn

    return fit_undrawn(cell.spec, runs, listener).folder


def never() -> bool:
    """Whether to stop, where nothing asks for it.

    Returns:
        False.
    """
    return False


def run_cell(study: Study, cell: Cell, train_cell: TrainCell = train, stopping: Callable[[], bool] = never) -> bool:
    """Do a cell, unless it is settled or somebody else is at it. A failure is noted, and its traceback kept in the log.

    Args:
        study: The study.
        cell: One of its cells.
        train_cell: What to do with it.
        stopping: Asked before the cell, and while it is at work beside training, whether to stop there.

    Returns:
        Whether this call did anything.

    Raises:
        Stopped: If the run was asked to stop, or `stopping` says so.
    """
    if stopping():
        raise Stopped(str(study.folder))
    with study.lease(cell.key) as mine:
        if not mine or study.settled(cell):
            return False
        study.begin(cell)
        listener = CellListener(study, cell, stopping)
        try:
            study.finish(cell, train_cell(cell, study.runs, listener))
        except Stopped:  # The run was asked to stop and has saved its state; whoever comes next goes on.
            study.update(cell.key, state="stopped", progress=None)
            raise
        except Busy:  # Somebody trains the same run outside the study; it is taken up when they are done.
            study.update(cell.key, state="waiting", progress=None)
            return False
        except Exception as error:  # noqa: BLE001  Whatever a run raises is the cell's failure, not the worker's.
            listener.note(traceback.format_exc())
            sentence = isinstance(error, UserError) and " ".join(str(error).split())
            study.fail(cell.key, sentence or f"{type(error).__name__}: {first_line(error)}")
        return True


class CellListener:
    """Writes a run's notes to the cell's log and, once a second, how far it is to the cell's record."""

    def __init__(self, study: Study, cell: Cell, stopping: Callable[[], bool] = never) -> None:
        self._study, self._cell, self._stopping, self._next = study, cell, stopping, 0.0

    def note(self, text: str) -> None:
        """A line in the log."""
        with open(self._study.log(self._cell), "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def progress(self, what: str, done: int, total: int) -> None:
        """How far something beside training is, which may be broken off here: it is done again from the newest checkpoint."""
        if self._stopping():
            raise Stopped(str(self._study.folder))
        self._show({"what": what, "share": done / max(1, total), "left": None})

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """How far training is."""
        self._show({"what": f"epoch {epoch + 1} of {epochs}", "share": (epoch * steps + step) / (epochs * steps), "left": left})

    def epoch(self, record: dict[str, Any]) -> None:
        """A line in the log."""
        split = "val" if "val" in record else "train"
        self.note(f"epoch {record['epoch'] + 1}: {split_title(split)} accuracy {100 * record[split]['accuracy']:.1f} %")

    def _show(self, progress: dict[str, Any]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._study.update(self._cell.key, progress=progress)
