"""A comparison as one page that opens offline: the leaderboard, learning curves over each other, and the paired statistics."""

from pathlib import Path
from typing import Any

from rekindle.files import embed, write_atomic
from rekindle.report.colors import method_color
from rekindle.report.compare import Comparison
from rekindle.report.compare_rows import Row
from rekindle.report.compare_tables import WORDS, tables
from rekindle.report.figures import Line, run_curves, themed_svg
from rekindle.report.template import render
from rekindle.run import Run

NAMED = 8  # Curves with a name and a colour; of more, nobody finds one in a legend.


def write_comparison(path: Path, found: Comparison) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, render("report/compare.html.j2", _content(found)))


def _content(found: Comparison) -> dict[str, Any]:
    """What the template shows, by name."""
    lines = curves(found)
    shown = list(tables(found))
    best = sorted(found.runs, key=lambda row: row["accuracy"], reverse=True)
    return {
        "tables": shown, "words": WORDS, "notes": found.notes, "count": len(found.runs), "named": NAMED,
        "shades": [method_color(row["method"]) for row in best], "left": len({line.label for line in lines}) > NAMED,
        "curves": embed(themed_svg(run_curves(lines)).encode(), "svg+xml") if lines else None,
    }  # fmt: skip


def curves(found: Comparison) -> list[Line]:
    """A curve of each run that was validated by epoch, those of the most accurate groups first and with their names.

    Returns:
        Lines for a figure.
    """
    groups = sorted(found.methods, key=lambda group: group["mean"], reverse=True)
    return [
        Line(_recipe(found, folder), group["method"] if place < NAMED else "", accuracies)
        for place, group in enumerate(groups)
        for folder in group["runs"]
        if (accuracies := _accuracies(folder))
    ]


def _recipe(found: Comparison, folder: str) -> str:
    row: Row = next(row for row in found.runs if folder in row["runs"])
    return str(row["method"])


def _accuracies(folder: str) -> list[float]:
    return [line["val"]["accuracy"] for line in Run(Path(folder)).history if "val" in line]
