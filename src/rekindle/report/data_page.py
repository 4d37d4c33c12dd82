"""A checked data set as one page that opens offline: pictures and style lie inside it, it runs no script, and names in it are escaped."""

from pathlib import Path
from typing import Any

from rekindle.data.check import Check, thumbnail
from rekindle.files import embed, write_atomic
from rekindle.report.template import render

GROUPS_SHOWN = 50
CLASSES_SHOWN = 400


def write_data_page(path: Path, found: Check) -> None:
    """Write the page; with very many classes, the pictures of the first 400 alone."""
    write_atomic(Path(path), render("report/data.html.j2", _content(found)))


def _content(found: Check) -> dict[str, Any]:
    """What the template shows, by name."""
    repeated = [
        ("in several splits", found.across), ("with several labels", found.contradictions), ("inside one split", found.within),
        ("same pixels, other bytes", found.alike),
    ]  # fmt: skip
    return {
        "found": found,
        "splits": list(found.counts),
        "totals": {split: sum(counts.values()) for split, counts in found.counts.items()},
        "most": max(found.counts["train"].values(), default=1) or 1,
        "repeated": [(title, len(groups), groups[:GROUPS_SHOWN]) for title, groups in repeated if groups],
        "samples": {
            name: [(picture, embed(thumbnail(found.pictures[picture]))) for picture in found.samples[name]]
            for name in found.classes[:CLASSES_SHOWN]
        },
    }
