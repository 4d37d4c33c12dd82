"""What a finished run leaves to look at: its pictures, and the page that holds them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rekindle.data import Picture, Undecodable
from rekindle.data.batches import preview
from rekindle.data.cache.decode import decode
from rekindle.data.samples import Samples
from rekindle.report import figures
from rekindle.report.results import final_split, worst_mistakes
from rekindle.report.run_page import WORST

THUMB = 160
LONGEST = 2
SAMPLES = 24


def write_samples(folder: Path, train: Samples, classes: list[str], seed: int) -> None:
    """Write samples.png: pictures from all over the training set as the network sees them in its first epoch."""
    rows = torch.linspace(0, len(train) - 1, min(SAMPLES, len(train))).long()
    x, labels = train.training(rows, seed, 0)
    images = preview(x, train.preprocessing.mean, train.preprocessing.std)
    figures.save(figures.samples(images, [_label(label, classes) for label in labels]), folder / "samples.png")


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


def _label(label: Tensor, classes: list[str]) -> str:
    """The class of a picture, or its shares where it is mixed."""
    if not label.is_floating_point():
        return classes[int(label)]
    shares = sorted(((float(share), name) for share, name in zip(label, classes, strict=True) if share > 0), reverse=True)
    return " ".join(f"{100 * share:.0f}% {name}" for share, name in shares) if len(shares) > 1 else shares[0][1]
