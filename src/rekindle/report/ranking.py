"""A ranking of networks as a figure and files."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rekindle.analysis.ranking import Ranking
from rekindle.errors import number_of
from rekindle.files import csv_text, write_atomic
from rekindle.report.colors import BLUE, GREY
from rekindle.report.figures import STYLE, save
from rekindle.stored import FileFormat

RANKING = FileFormat(2, dict[str, Any])
TITLES = {"logme": "LogME", "leep": "LEEP", "h_score": "H-score (shrunk)"}


def write_ranking(ranking: Ranking, folder: Path) -> list[Path]:
    """Write rank.json, rank.csv and rank.png; their paths.

    Returns:
        The three paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(one) for one in ranking.candidates]
    RANKING.write(folder / "rank.json", ranking.to_dict())
    write_atomic(folder / "rank.csv", csv_text(list(rows[0]), [row.values() for row in rows]))
    save(figure(ranking), folder / "rank.png")
    return [folder / name for name in ("rank.png", "rank.csv", "rank.json")]


def figure(ranking: Ranking) -> Figure:
    """A panel a score, a line a network, in the order of LogME.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    names = [one.label for one in ranking.candidates]
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(7 + 0.07 * max(map(len, names)), 1.3 + 0.34 * len(names)), layout="constrained")
        for panel, (score, title) in zip(made.subplots(1, len(TITLES), sharey=True), TITLES.items(), strict=True):
            for place, one in enumerate(ranking.candidates):
                _mark(panel, place, getattr(one, score))
            panel.set_yticks(range(len(names)), names)
            panel.set_ylim(len(names) - 0.5, -0.5)
            panel.margins(x=0.12)
            panel.set_title(title)
        text = f"higher is better; {number_of(ranking.pictures, 'training picture')}, {number_of(len(ranking.classes), 'class')}"
        made.suptitle(text, fontsize=10, x=0.01, ha="left")
    return made


def _mark(panel: Axes, place: int, value: float | None) -> None:
    """A point, or the reason why there is none."""
    if value is None:
        text, spot = "no trained classifier", (0.5, place)
        panel.annotate(text, spot, xycoords=("axes fraction", "data"), color=GREY, ha="center", va="center")
    else:
        panel.plot(value, place, "o", color=BLUE, markersize=7)
