"""A study as one page that opens offline. Names in it are escaped, and its one script is the only one that a browser lets run."""

import base64
import hashlib
import urllib.parse
from importlib.resources import files
from pathlib import Path
from typing import Any

from rekindle.files import write_atomic
from rekindle.report.figures import RANKS_NEED
from rekindle.report.format import duration, escape
from rekindle.report.template import render
from rekindle.study.report import figures, formats, tables
from rekindle.study.report.numbers import StudyNumbers, study_numbers
from rekindle.study.store import Study

FILES = ("report.md", "report.html", "runs.csv", "table.csv", "table.tex")


def write(study: Study, published: bool = False) -> Path:
    """Write report.md, report.html, runs.csv, table.csv, table.tex and figures into the study's report folder.

    Args:
        study: Whose runs are read; none is trained.
        published: Put the RIFLE paper's numbers beside ours.

    Returns:
        The folder.
    """
    from rekindle.report.figures import save, svg

    numbers = study_numbers(study)
    folder = study.folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {setting: figure for setting in study.grid.settings if (figure := figures.curves(numbers, setting))}
    pictures = {}
    for number, (setting, figure) in enumerate(drawn.items()):
        save(figure, folder / f"curves-{number}.png")
        pictures[f"Learning curves: {setting}"] = f"curves-{number}.png"
    over_all, notes = plots(numbers)
    for name, (caption, figure) in over_all.items():
        save(figure, folder / f"{name}.png")
        pictures[caption] = f"{name}.png"
    write_atomic(folder / "report.md", formats.markdown(numbers, {escape(caption): name for caption, name in pictures.items()}, published))
    write_atomic(folder / "runs.csv", formats.runs_csv(numbers))
    write_atomic(folder / "table.csv", formats.table_csv(numbers))
    write_atomic(folder / "table.tex", formats.latex(numbers))
    inside = {
        "curves": [svg(figure) for figure in drawn.values()],
        "plots": [svg(figure) for _, figure in over_all.values()],
        "notes": notes,
    }
    write_atomic(folder / "report.html", html(numbers, inside, published))
    return folder


def html(numbers: StudyNumbers, inside: dict[str, Any], published: bool) -> str:
    """The page.

    Args:
        numbers: The numbers.
        inside: curves and plots as SVG, and notes on those that could not be drawn.
        published: Whether the RIFLE paper's numbers stand beside ours.

    Returns:
        One page that needs no other file, but where it links to runs.
    """
    script = files("rekindle.study.report").joinpath("study.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    slowest = max((row["ratio"] or 0.0 for row in numbers.costs), default=0.0)
    content = {
        "numbers": numbers,
        "text": tables,
        "script": script,
        "digest": digest,
        "colours": figures.palette(numbers),
        "published": published,
        "slowest": slowest or 1.0,
        **inside,
    }
    return render("study/report/study.html.j2", content, {"duration": duration, "run_link": run_link})


def run_link(run: str) -> str:
    """From the report's folder to the page of a run.

    Returns:
        A relative address.
    """
    return urllib.parse.quote(f"../{Path(run).as_posix()}/report.html")


def plots(numbers: StudyNumbers) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Figures over all settings, by file name, with captions; and why some are missing.

    Returns:
        ({file name: (caption, figure)}, sentences).
    """
    made: dict[str, tuple[str, Any]] = {}
    notes = []
    if figure := figures.differences(numbers):
        made["differences"] = f"Paired differences from {numbers.baseline}", figure
    for number, overall in enumerate(numbers.overall):
        try:
            figure = figures.critical_difference(numbers, overall)
        except ImportError:
            notes.append(RANKS_NEED)
            continue
        if figure:
            made[f"ranks-{number}"] = f"Average ranks {overall.regularizer}".strip(), figure
    return made, notes
