"""The pictures of a run, and what its page says of each. What draws them is imported when something is drawn, for it takes a second."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from rekindle.data import Picture
from rekindle.data.batches import preview
from rekindle.data.samples import Samples
from rekindle.method import noop
from rekindle.records import Answer, read_predictions, read_probabilities
from rekindle.report.cards import mistake_cards, write_cards
from rekindle.report.format import percent
from rekindle.report.results import final_split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 16
MISTAKES, HEAT_MAPS = "mistakes.json", "heat_maps.json"


def write_samples(folder: Path, train: Samples, classes: list[str], seed: int) -> None:
    """Write samples.png: pictures from all over the training set as the network sees them in its first epoch."""
    from rekindle.report import figures

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


def _curves(run: Finished) -> "Figure | None":
    """By epoch; a soup had none."""
    from rekindle.report import figures

    return figures.curves(run.history) if run.history else None


def _confusion(run: Finished) -> "Figure":
    from rekindle.report import figures

    return figures.confusion(run.measured["confusion"], run.result["classes"])


def _reliability(run: Finished) -> "Figure | None":
    """At the run's temperature and, where that is another, at 1; None of early versions' files, which may lack probabilities."""
    from rekindle.report import figures

    split = final_split(run.result)
    rows = read_predictions(run.folder, split)
    right = np.array([row["label"] == row["prediction"] for row in rows])
    error, temperature = run.measured["calibration_error"], run.result.get("temperature", 1.0)
    answers = {}
    plain = run.result.get("uncalibrated", {}).get(split)
    if plain and temperature != 1:
        before = _at_one(read_probabilities(run.folder, split), run.result["classes"], temperature)
        answers[f"at temperature 1: calibration error {percent(plain['calibration_error'], 1)} %"] = (before, right)
    answers[f"at temperature {temperature:.2f}: calibration error {percent(error, 1)} %"] = (
        np.array([float(row["confidence"]) for row in rows]), right,
    )  # fmt: skip
    return figures.reliability(answers)


def _at_one(rows: Iterable[Answer], classes: list[str], temperature: float) -> np.ndarray:
    """(N,) confidences at temperature 1, from the probabilities at another: they are to the power of T, and sum to 1 again.

    Those that predictions.csv rounded to 0 stay there, which matters only far below a temperature of 1.
    """
    names = [f"p_{name}" for name in classes]
    powers = (np.array([float(row[name]) for name in names]) ** temperature for row in rows)  # type: ignore[literal-required]
    return np.array([power.max() / power.sum() for power in powers])


@dataclass(frozen=True)
class RunPicture:
    """A picture of a run: a file NAME.svg or NAME.png in its folder, and a section of its page.

    Attributes:
        title: The section's heading.
        text: What stands below it.
        alt: What the picture shows, for whoever cannot see it.
        draw: Makes it from a finished run, or None where there is nothing to show; None for one of photographs, drawn during training.
    """

    title: str
    text: str
    alt: str
    draw: "Callable[[Finished], Figure | None] | None"

    @property
    def kind(self) -> Literal["svg", "png"]:
        """The ending of its file: drawings follow the page's light and dark, photographs do not."""
        return "png" if self.draw is None else "svg"


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
    "reliability": RunPicture(
        "Can confidences be believed?",
        "Of answers given with 80 % confidence, 80 % should be right: dots below the dotted line are overconfident.",
        "Share of right answers by confidence",
        _reliability,
    ),
    "samples": RunPicture(
        "What the network sees",
        "Pictures of the training set as they go in, augmented differently in each epoch.",
        "Training pictures after cropping and mirroring",
        None,
    ),
}


def write_pictures(run: Finished, progress: Callable[[str, int, int], object] = noop) -> None:
    """Write every figure of a finished run, and the cards of its mistakes, into its folder; `progress` is told (what, done, total)."""
    draw_figures(run, progress)
    write_cards(run.folder / MISTAKES, mistake_cards(run.folder, final_split(run.result), run.find))


def draw_figures(run: Finished, progress: Callable[[str, int, int], object] = noop) -> None:
    """Write the drawings of `PICTURES`; `progress` is told (what, done, total)."""
    from rekindle.report import figures

    for number, (name, picture) in enumerate(PICTURES.items()):
        progress("drawing pictures", number, len(PICTURES))
        figure = picture.draw(run) if picture.draw is not None else None
        if figure is not None:
            figures.save_svg(figure, run.folder / f"{name}.svg")


def _label(label: Tensor, classes: list[str]) -> str:
    """The class of a picture, or its shares where it is mixed."""
    if not label.is_floating_point():
        return classes[int(label)]
    shares = sorted(((float(share), name) for share, name in zip(label, classes, strict=True) if share > 0), reverse=True)
    return " ".join(f"{100 * share:.0f}% {name}" for share, name in shares) if len(shares) > 1 else shares[0][1]
