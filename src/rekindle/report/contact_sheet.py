"""Predictions as one page of thumbnails that opens offline: pictures and style lie inside it, it runs no script, and names in it are escaped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rekindle.data import Undecodable
from rekindle.data.check import thumbnail
from rekindle.data.formats.names import printable
from rekindle.files import embed, write_atomic
from rekindle.report.template import render
from rekindle.run import Prediction

Order = Literal["class", "confidence"]
THUMB = 160


def write_contact_sheet(path: Path, title: str, found: Sequence[Prediction], order: Order = "class") -> None:
    """Write the page.

    Args:
        path: Where to.
        title: The run's name.
        found: What `Run.predict` gave.
        order: "class" for one after the other, the most confident first in each; "confidence" for the least confident first.
    """
    write_atomic(path, render("report/contact_sheet.html.j2", _content(title, found, order), {"percent": _percent}))


def _content(title: str, found: Sequence[Prediction], order: Order) -> dict[str, Any]:
    """What the template shows, by name."""
    named, failed = [row for row in found if not row.error], [row for row in found if row.error]
    return {
        "title": title, "cards": [_card(row) for row in in_order(named, order)], "order": order,
        "failed": [(printable(row.path), row.error) for row in failed],
        "asked": any(row.unsure is not None for row in named), "unsure": sum(bool(row.unsure) for row in named),
    }  # fmt: skip


def in_order(named: Sequence[Prediction], order: Order) -> list[Prediction]:
    """Pictures that have an answer, as the page shows them.

    Returns:
        The same predictions, by class and then the surest first, or the least confident first.
    """
    if order == "confidence":
        return sorted(named, key=lambda row: row.confidences[0])
    return sorted(named, key=lambda row: (row.classes[0], -row.confidences[0]))


def _card(row: Prediction) -> dict[str, Any]:
    name = printable(row.path)
    return {
        "path": name, "file": Path(name).name, "answers": list(zip(row.classes, row.confidences, strict=True)), "unsure": row.unsure,
        "image": _image(Path(row.path)),
    }  # fmt: skip


def _image(path: Path) -> str | None:
    """A thumbnail as an address that the page holds whole; None of a file that has gone since."""
    try:
        return embed(thumbnail(path, THUMB))
    except (Undecodable, OSError):
        return None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share < 0.995 else f"{100 * share:.1f} %"
