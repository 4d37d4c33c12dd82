"""What a finished run leaves to look at: its pictures, and the page that holds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rekindle.data import Picture, Undecodable, decode
from rekindle.report import figures
from rekindle.report.html import WORST, write_report
from rekindle.report.results import final_split, worst_mistakes

__all__ = ["write_pictures", "write_report"]

THUMB = 160
LONGEST = 2


def write_pictures(folder: Path, history: list[dict[str, Any]], result: dict[str, Any], find: Callable[[str], Picture]) -> None:
    """Write curves.png, confusion.png and mistakes.png.

    Args:
        folder: The run's; its predictions.csv is read.
        history: Lines of metrics.jsonl.
        result: What result.json will hold.
        find: The picture of a name in predictions.csv, for those of mistakes; those that cannot be read are left out, and mistakes.png with
            them where none can be read: it would claim that there are no mistakes.
    """
    split = final_split(result)
    figures.save(figures.curves(history), folder / "curves.png")
    figures.save(figures.confusion(result[split]["confusion"], result["classes"]), folder / "confusion.png")
    wrong = worst_mistakes(folder, split, WORST)
    shown = [(row, image) for row in wrong if (image := _thumbnail(find(row["path"]))) is not None]
    if wrong and not shown:
        return
    figure = figures.mistakes(
        [image for _, image in shown],
        [row["label"] for row, _ in shown],
        [row["prediction"] for row, _ in shown],
        [float(row["confidence"]) for row, _ in shown],
    )
    figures.save(figure, folder / "mistakes.png")


def _thumbnail(picture: Picture) -> np.ndarray | None:
    """The whole picture, small, its longer side cut to twice the shorter: a person wants to see what the network's crop hides."""
    try:
        image = decode(picture, THUMB)
    except (Undecodable, OSError):
        return None
    top, left = (max(0, (length - LONGEST * THUMB) // 2) for length in image.shape[:2])
    return image[top : top + LONGEST * THUMB, left : left + LONGEST * THUMB]
