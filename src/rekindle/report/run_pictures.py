"""The pictures of a run, and what its page says of each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from rekindle.data import Picture, Undecodable
from rekindle.data.batches import preview
from rekindle.data.cache.decode import decode
from rekindle.data.samples import Samples
from rekindle.method import noop
from rekindle.report import figures
from rekindle.report.results import WORST, final_split, worst_mistakes

THUMB = 160
LONGEST = 2
SAMPLES = 24


def write_samples(folder: Path, train: Samples, classes: list[str], seed: int) -> None:
    """Write samples.png: pictures from all over the training set as the network sees them in its first epoch."""
    rows = torch.linspace(0, len(train) - 1, min(SAMPLES, len(train))).long()
    x, labels = train.training(rows, seed, 0)
    images = preview(x, train.preprocessing.mean, train.preprocessing.std)
    figures.save(figures.samples(images, [_label(label, classes) for label in labels]), folder / "samples.png")


@dataclass(frozen=True)
class Finished:
    """What the pictures of a finished run are drawn from.

    Attributes:
        folder: The run's; its predictions.csv is read.
        history: Lines of metrics.jsonl.
        result: What result.json will hold.
        find: The picture of a name in predictions.csv.
    """

    folder: Path
    history: list[dict[str, Any]]
    result: dict[str, Any]
    find: Callable[[str], Picture]

    @property
    def measured(self) -> dict[str, Any]:
        """Figures of the split that counts."""
        figures_of_split: dict[str, Any] = self.result[final_split(self.result)]
        return figures_of_split


def _curves(run: Finished) -> Figure:
    return figures.curves(run.history)


def _confusion(run: Finished) -> Figure:
    return figures.confusion(run.measured["confusion"], run.result["classes"])


def _mistakes(run: Finished) -> Figure | None:
    """Those that cannot be read are left out; None where none can be read, for the figure would claim that there are no mistakes."""
    wrong = worst_mistakes(run.folder, final_split(run.result), WORST)
    shown = [(row, image) for row in wrong if (image := _thumbnail(run.find(row["path"]))) is not None]
    if wrong and not shown:
        return None
    return figures.mistakes(
        [image for _, image in shown],
        [row["label"] for row, _ in shown],
        [row["prediction"] for row, _ in shown],
        [float(row["confidence"]) for row, _ in shown],
    )


@dataclass(frozen=True)
class RunPicture:
    """A picture of a run: NAME.png in its folder, and a section of its page.

    Attributes:
        title: The section's heading.
        text: What stands below it.
        alt: What the picture shows, for whoever cannot see it.
        draw: Makes it from a finished run, or None where there is nothing to show; None for one that is drawn during training.
    """

    title: str
    text: str
    alt: str
    draw: Callable[[Finished], Figure | None] | None


# In the order of the page. A further picture is a further entry here.
PICTURES = {
    "curves": RunPicture(
        "Learning curves",
        "Training figures come from augmented pictures while the weights still move, validation figures from whole ones after "
        "each epoch; of many, from a part that the seed draws.",
        "Loss, accuracy and learning rate by epoch",
        _curves,
    ),
    "confusion": RunPicture("Confusion matrix", "Rows are true classes, columns what the network said.", "Confusion matrix", _confusion),
    "mistakes": RunPicture(
        "Worst mistakes",
        "The wrong answers that the network was surest of. Wrong labels in the data often show up here.",
        "Pictures classified wrongly with the greatest confidence",
        _mistakes,
    ),
    "samples": RunPicture(
        "What the network sees",
        "Pictures of the training set as they go in, augmented differently in each epoch.",
        "Training pictures after cropping and mirroring",
        None,
    ),
}


def write_pictures(run: Finished, progress: Callable[[str, int, int], object] = noop) -> None:
    """Write every picture of a finished run into its folder; `progress` is told (what, done, total)."""
    for number, (name, picture) in enumerate(PICTURES.items()):
        progress("drawing pictures", number, len(PICTURES))
        figure = picture.draw(run) if picture.draw is not None else None
        if figure is not None:
            figures.save(figure, run.folder / f"{name}.png")


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
