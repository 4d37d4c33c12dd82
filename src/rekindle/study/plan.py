"""What a study will run, and about how long that takes."""

from dataclasses import dataclass
from typing import Any

from rekindle.study.cost import Cost
from rekindle.study.grid import by_setting, uneven_choices
from rekindle.study.store import Study


@dataclass(frozen=True)
class Plan:
    """A study before it is run.

    Attributes:
        rows: For each setting: setting, methods, seeds, runs, done, failed, and seconds left (None where unknown).
        seconds: What is left to compute, in seconds of one job; settings of unknown cost are not in it.
        measured: Settings whose cost comes from finished cells.
        notes: Sentences on what makes its comparison uneven, and on what could not be estimated, and why.
    """

    rows: list[dict[str, Any]]
    seconds: float
    measured: int
    notes: list[str]

    @property
    def runs(self) -> int:
        """All runs."""
        return sum(row["runs"] for row in self.rows)

    @property
    def done(self) -> int:
        """Runs that are finished."""
        return sum(row["done"] for row in self.rows)

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(row["failed"] for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON.

        Returns:
            Plain values.
        """
        rows = [{**row, "setting": str(row["setting"])} for row in self.rows]
        return {
            "runs": self.runs,
            "done": self.done,
            "failed": self.failed,
            "seconds_left": self.seconds,
            "settings": rows,
            "notes": self.notes,
        }


def plan(study: Study) -> Plan:
    """Count the cells of a study and estimate the cost of those that are not finished.

    Returns:
        Counts of cells by state, and the time and room that the rest takes.
    """
    cost = Cost(study)
    rows, measured = [], 0
    for setting, groups in by_setting(study.groups).items():
        row: dict[str, Any] = {
            "setting": setting,
            "methods": len(groups),
            "seeds": max(len(group.seeds) for group in groups),
            "runs": 0,
            "done": 0,
            "failed": 0,
        }
        seconds: list[float | None] = []
        for group in groups:
            known = study.final_cells(group)
            # A final run whose candidate is still to be chosen costs about as much as one of the first candidate.
            final = known or (next(iter(group.final_cells.values())) if study.selecting(group) else [])
            for cell in [*group.selection_cells, *final]:
                state = study.state(cell) if cell in known or cell.stage == "select" else "waiting"
                row["runs"] += 1
                row["done"] += state == "done"
                row["failed"] += state == "failed"
                if state not in ("done", "failed"):
                    seconds.append(cost.of(cell))
            if study.selecting(group):  # Candidates that are still to be proposed cost about as much as the first.
                coming = (group.budget - len(group.candidates)) * len(group.selection.seeds)
                row["runs"] += coming
                seconds += coming * [cost.of(group.selection_cells[0])]
        row["seconds"] = None if None in seconds else sum(second for second in seconds if second is not None)
        measured += setting in cost.finished
        rows.append(row)
    return Plan(rows, sum(row["seconds"] or 0.0 for row in rows), measured, [*uneven_choices(study.grid), *cost.notes])
