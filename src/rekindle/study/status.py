"""How far a study is, from its files alone."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rekindle.study.grid import Cell, Setting
from rekindle.study.store import Study

STATES = ("done", "failed", "running", "stopped", "waiting")


@dataclass(frozen=True)
class Status:
    """A look at a study.

    Attributes:
        name: The study's.
        counts: Cells by state: done, failed, running, stopped (begun, nobody at it), waiting.
        unknown: Final runs that wait for a selection; they are not among the counts.
        settings: For each setting, its final and choosing cells by state.
        running: Cells in hand with their progress: what, share from 0 to 1, left in seconds or None.
        failed: Cells that failed, with the message.
        damaged: A sentence for each damaged file of a cell, which counts as not done.
    """

    name: str
    counts: dict[str, int]
    unknown: int
    settings: dict[Setting, dict[str, int]]
    running: list[tuple[Cell, dict[str, Any]]]
    failed: list[tuple[Cell, str]]
    damaged: list[str]

    @property
    def total(self) -> int:
        """All cells, known or not."""
        return sum(self.counts.values()) + self.unknown

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.total == self.counts["done"] + self.counts["failed"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON.

        Returns:
            Plain values.
        """
        return {
            "study": self.name, "total": self.total, **self.counts, "waiting_for_selection": self.unknown,
            "running_cells": [{"cell": str(cell), **progress} for cell, progress in self.running],
            "failed_cells": [{"cell": str(cell), "error": error} for cell, error in self.failed],
            "damaged_files": self.damaged,
        }  # fmt: skip


def read_status(study: Study) -> Status:
    """Read the records of all cells.

    Returns:
        Counts of cells by state, and what runs and failed.
    """
    counts = Counter(dict.fromkeys(STATES, 0))
    settings: dict[Setting, Counter[str]] = {}
    running, failed = [], []
    for cell in study.cells():
        state = study.state(cell)
        counts[state] += 1
        settings.setdefault(cell.setting, Counter(dict.fromkeys(STATES, 0)))[state] += 1
        record = study.record(cell.key)
        if state == "running":
            running.append((cell, record.get("progress") or {"what": "starting", "share": 0.0, "left": None}))
        elif state == "failed":
            failed.append((cell, str(record.get("error"))))
    ordered = {setting: dict(settings[setting]) for setting in study.grid.settings if setting in settings}
    unknown = study.unknown_cells()
    return Status(study.grid.name, dict(counts), unknown, ordered, running, failed, list(study.faults.values()))
