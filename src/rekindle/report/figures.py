"""The pictures of a run. Class names are user input: nothing in them is taken for mathematics."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rekindle.checkpoints import write_atomic

# Okabe and Ito's palette, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
STYLE = {"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 10}
NUMBERED = 20


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=150)
    write_atomic(path, buffer.getvalue())


def curves(metrics: list[dict[str, Any]]) -> Figure:
    """Loss, accuracy and learning rates by epoch; dotted lines where the head was re-initialised.

    Args:
        metrics: Lines of metrics.jsonl.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        panels = figure.subplots(1, 3)
        epochs = [line["epoch"] + 1 for line in metrics]
        for panel, key, title in zip(panels, ("loss", "accuracy"), ("loss", "accuracy (%)"), strict=False):
            scale = 100 if key == "accuracy" else 1
            for split, colour in (("train", GREY), ("val", BLUE)):
                panel.plot(epochs, [scale * line[split][key] for line in metrics], color=colour, marker=".", label={"val": "validation"}.get(split, split))
            panel.set_title(title)
            panel.legend(frameon=False)
        for group, colour in (("backbone", GREEN), ("head", ORANGE)):
            if all(group in line["lr"] for line in metrics):
                panels[2].plot(epochs, [line["lr"][group] for line in metrics], color=colour, drawstyle="steps-mid", label=group)
        panels[2].set_title("learning rate")
        panels[2].legend(frameon=False)
        for panel in panels:
            panel.set_xlabel("epoch")
            _mark_restarts(panel, metrics)
    return figure


def _mark_restarts(panel: Axes, metrics: list[dict[str, Any]]) -> None:
    for line in metrics:
        if line["restarted"]:
            panel.axvline(line["epoch"] + 0.5, color=RED, linestyle=":", linewidth=1)
            panel.annotate("head drawn anew", (line["epoch"] + 0.5, 0.5), xycoords=("data", "axes fraction"), rotation=90, color=RED, fontsize=7, ha="right", va="center")


def confusion(matrix: Sequence[Sequence[int]], classes: list[str]) -> Figure:
    """Confusion matrix: colours by share of the true class, numbers where they can be read.

    Args:
        matrix: (C, C) counts, rows true.
        classes: C names.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    edge = min(16.0, max(5.0, 1.8 + 0.5 * len(classes)))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(edge, edge * 0.92), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ticks = range(0, len(classes), max(1, len(classes) // 50))
        axes.set_xticks(ticks, [_short(classes[i]) for i in ticks], rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, [_short(classes[i]) for i in ticks])
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(classes) <= NUMBERED:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    axes.text(column, row, str(count), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black")
    return figure


def samples(images: np.ndarray, titles: list[str]) -> Figure:
    """A training batch as the network sees it: (N, H, W, 3) uint8, a title each."""
    return _grid(list(images), titles, "training pictures, cropped and mirrored as the network sees them")


def mistakes(images: list[np.ndarray], true: list[str], predicted: list[str], confidence: list[float]) -> Figure:
    """The wrong answers that the network was surest of."""
    if not images:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(6, 1.2))
            figure.text(0.5, 0.5, "No mistakes on these pictures.", ha="center", va="center", fontsize=14)
        return figure
    titles = [f"{_short(p)} {c:.0%}\nis {_short(t)}" for t, p, c in zip(true, predicted, confidence, strict=True)]
    return _grid(images, titles, "surest mistakes: what it said, and what it is")


def seed_curves(histories: dict[str, list[list[dict[str, Any]]]]) -> Figure:
    """Validation accuracy by epoch: a line for the mean over seeds, a band from the least to the greatest.

    Args:
        histories: {label: one list of metrics lines a seed}.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for (label, runs), colour in zip(histories.items(), COLOURS, strict=False):
            values = 100 * np.array([[line["val"]["accuracy"] for line in run] for run in runs])
            epochs = np.arange(1, values.shape[1] + 1)
            axes.plot(epochs, values.mean(0), color=colour, label=f"{label} ({len(runs)} seeds)")
            axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy (%)")
        axes.legend(frameon=False)
    return figure


def _grid(images: list[np.ndarray], titles: list[str], heading: str) -> Figure:
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.5 * columns, 1.85 * rows + 0.4), layout="constrained")
        figure.suptitle(heading, fontsize=10)
        for axes in figure.subplots(rows, columns, squeeze=False).flat:
            axes.set_axis_off()
        for axes, image, title in zip(figure.axes, images, titles, strict=False):
            axes.imshow(image)
            axes.set_title(_short(title) if "\n" not in title else title, fontsize=8)
    return figure


def _short(text: str, length: int = 16) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
