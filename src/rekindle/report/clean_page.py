"""What looks wrong in a labelled set, as a page that opens offline and as a CSV file that `rekindle fit --exclude` takes."""

from pathlib import Path
from typing import Any

from rekindle.analysis.cleaning import Cleaning, Issue
from rekindle.data.check import thumbnail
from rekindle.data.exclusion import COLUMN
from rekindle.errors import agree, number_of
from rekindle.files import csv_text, embed, expand, write_atomic
from rekindle.report.format import percent, place_name, split_title
from rekindle.report.template import render

SHOWN = 150  # Pictures of a kind, the surest; the file names all.


def write_cleaning(folder: Path, found: Cleaning) -> tuple[Path, Path]:
    """Write clean.html and clean.csv; the folder is made.

    Returns:
        (page, CSV file).
    """
    folder = expand(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page, file = folder / "clean.html", folder / "clean.csv"
    rows = [[issue.path, issue.split, issue.kind, issue.label, issue.suggestion, round(issue.score, 4)] for issue in found.issues]
    write_atomic(file, csv_text([COLUMN, "split", "kind", "label", "suggestion", "score"], rows))
    write_atomic(
        page, render("report/clean.html.j2", _content(found), {"percent": percent, "split_title": split_title, "place_name": place_name})
    )
    return page, file


def _content(found: Cleaning) -> dict[str, Any]:
    """What the template shows, by name."""
    labels, outliers, duplicates = found.of("label"), found.of("outlier"), found.of("duplicate")
    groups: dict[str, list[Issue]] = {}
    for issue in duplicates[:SHOWN]:
        groups.setdefault(issue.suggestion, []).append(issue)
    shown = {issue.path for issue in (*labels[:SHOWN], *outliers[:SHOWN], *duplicates[:SHOWN])} | set(groups)
    return {
        "name": place_name(found.data), "found": found, "total": sum(found.counts.values()),
        "counts": [
            f"{number_of(len(labels), 'label')} that {agree(len(labels), 'looks')} wrong",
            number_of(len(outliers), "outlier"), number_of(len(duplicates), "near duplicate"),
        ],
        "labels": labels[:SHOWN], "outliers": outliers[:SHOWN], "groups": groups,
        "hidden": {kind: max(0, len(issues) - SHOWN) for kind, issues in (("label", labels), ("outlier", outliers), ("duplicate", duplicates))},
        "pictures": {name: embed(thumbnail(found.pictures[name])) for name in shown},
    }  # fmt: skip
