"""Figures drawn from plain values: curves, matrices, grids of images. Class names are user input: nothing in them is taken for mathematics."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import HashableList

from rekindle.errors import number_of
from rekindle.files import write_atomic
from rekindle.report.colors import BLUE, COLORS, DASHES, GREEN, GREY, ORANGE, PAGE, PINK, RED, method_styles, palette
from rekindle.report.format import short

INK = PAGE["ink"][0]  # Of text and axes; a page's own ink takes its place in an SVG.
# Matplotlib's own font lacks most of Asia's scripts; these are asked, in turn, where they are installed.
FALLBACK_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei",
    "Noto Sans", "Arial Unicode MS",
)  # fmt: skip
STYLE: Any = {
    "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 10,
    "axes.titlesize": 10, "axes.titlelocation": "left", "legend.frameon": False, "lines.linewidth": 1.6, "lines.markersize": 4,
    "axes.titley": 1.0,  # Else matplotlib seeks a height free of ticks, four times a panel: half the time of a grid of pictures.
    "font.family": ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in font_manager.get_font_names())],
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK),
    # Equal figures are equal bytes, and letters stay letters.
    "svg.fonttype": "none", "svg.hashsalt": "rekindle",
}  # fmt: skip
THEME = f"<style>{palette('ink')}text{{font-family:system-ui,sans-serif!important}}</style>"
DPI = 150
NUMBERED = 20
COLUMNS = 4
CELL = 1.6
NARROW = 4.0  # Inches; letters of 10 points are 12 pixels high on a telephone of 400.
LEGEND = 42  # Letters of a legend's line in a figure of that width.
BINS = 10
NAME = 32  # Letters of a method's name.
RANKS_NEED = "The diagram of critical differences needs scikit-posthocs: pip install 'rekindle[study]'."


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    fast = {"compress_level": 1}  # Photographs hardly become smaller by more.
    write_atomic(Path(path), _saved(figure, format="png", dpi=DPI, metadata={"Software": "rekindle"}, pil_kwargs=fast))


def _saved(figure: Figure, **options: Any) -> bytes:
    """A letter that no installed font has is drawn as a box, which is all that can be done."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as SVG to stand inside a page, in the page's own ink and on its own paper.

    Returns:
        SVG text.
    """
    text = _saved(figure, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
    return text[text.index("<svg") :].replace(INK, "var(--ink)")


def themed_svg(figure: Figure) -> str:
    """The figure as SVG that stands alone and follows light and dark by itself.

    Returns:
        SVG text.
    """
    head, end, body = svg(figure).partition(">")
    return head + end + THEME + body


def save_svg(figure: Figure, path: Path) -> None:
    """Write `themed_svg` whole or not at all."""
    write_atomic(Path(path), themed_svg(figure))


def curves(metrics: list[dict[str, Any]]) -> Figure:
    """Loss, accuracy and learning rates by epoch, one below the other, then the direction where there is one; dashed lines where the
    head was re-initialised.

    Args:
        metrics: Lines of metrics.jsonl.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    directed = all("direction" in line for line in metrics)
    rows: list[HashableList[str]] = [["loss"], ["accuracy"], ["lr"]]
    heights = [2.2, 2.2, 1.25]
    if directed:
        rows, heights = [*rows, ["direction"]], [*heights, 1.5]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW, sum(heights) + 1.5), layout="constrained")
        panels = figure.subplot_mosaic(rows, height_ratios=heights)
        _split_curves(panels["loss"], metrics, "loss", 1)
        _split_curves(panels["accuracy"], metrics, "accuracy", 100)
        _rates(panels["lr"], metrics)
        for panel in panels.values():
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            panel.set_xlim(0.5, len(metrics) + 0.5)
            _mark_restarts(panel, metrics)
        panels["loss"].set_title("loss")
        panels["accuracy"].set_title("accuracy (%)")
        panels["lr"].set_title("learning rate")
        if directed:
            _direction(panels["direction"], metrics)
        panels["direction" if directed else "lr"].set_xlabel("epoch")
        named = {label: line for panel in panels.values() for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=2)
    return figure


def _split_curves(panel: Axes, metrics: list[dict[str, Any]], key: str, scale: float) -> None:
    epochs = [line["epoch"] + 1 for line in metrics]
    lines = (("train", "training", GREY, "--"), ("val", "validation", BLUE, "-"), ("watched_test", "test, watched only", GREEN, ":"))
    for split, label, color, style in lines:
        if split not in metrics[0]:
            continue
        panel.plot(
            epochs,
            [scale * line[split][key] for line in metrics],
            style,
            color=color,
            marker="." if len(epochs) <= 60 else None,
            label=label,
        )


def _rates(panel: Axes, metrics: list[dict[str, Any]]) -> None:
    edges = np.arange(len(metrics) + 1) + 0.5
    for group, color, style in (("backbone", GREEN, "-"), ("head", ORANGE, "--")):
        if all(group in line["lr"] for line in metrics):
            panel.stairs(
                [line["lr"][group] for line in metrics], edges, baseline=None, color=color, linestyle=style, linewidth=1.6, label=group
            )
    panel.set_ylim(bottom=0)


def _direction(panel: Axes, metrics: list[dict[str, Any]]) -> None:
    """Mean angle between the gradients of loss and regulariser, and how often they were in conflict."""
    epochs = [line["epoch"] + 1 for line in metrics]
    panel.set_title("loss and regulariser: cosine of their gradients, share of steps in conflict")
    panel.plot(epochs, [line["direction"]["cosine"] for line in metrics], color=COLORS[3], marker=".", label="mean cosine")
    panel.plot(epochs, [line["direction"]["conflicts"] for line in metrics], "--", color=PINK, marker=".", label="share in conflict")
    panel.axhline(0, color=GREY, linewidth=0.8)
    panel.set_ylim(-1.05, 1.05)


def _mark_restarts(panel: Axes, metrics: list[dict[str, Any]]) -> None:
    """The head is drawn anew as an epoch starts: between the points of the epoch before and of its own."""
    for number, line in enumerate(line for line in metrics if line["restarted"]):
        panel.axvline(line["epoch"] + 0.5, color=RED, linestyle=(0, (4, 3)), linewidth=1, label=None if number else "head re-initialised")


def confusion(matrix: Sequence[Sequence[int]], classes: list[str]) -> Figure:
    """Confusion matrix: colours by share of the true class; numbers for up to 20 classes, every name for up to 100.

    Args:
        matrix: (C, C) counts, rows true.
        classes: C names.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    numbered = len(classes) <= NUMBERED
    edge = min(14.0, max(NARROW, 0.38 * len(classes)))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(edge + (0 if numbered else 1.5), edge), layout="constrained")
        axes = figure.subplots()
        # Cells without pictures are clear, so that the page's paper shows through.
        picture = axes.imshow(shares, cmap=_clear_to(BLUE), vmin=0, vmax=1, interpolation="none")
        axes.spines[:].set_visible(False)
        step = -(-len(classes) // 100)
        ticks, size = range(0, len(classes), step), min(10.0, 60 * edge * step / len(classes))
        names = [short(classes[i], 22) for i in ticks]
        slant: dict[str, Any] = {"rotation": 50, "ha": "right", "rotation_mode": "anchor"} if numbered else {"rotation": 90}
        axes.set_xticks(ticks, names, fontsize=size, **slant)
        axes.set_yticks(ticks, names, fontsize=size)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if numbered:
            _number(axes, counts, shares)
        else:
            figure.colorbar(picture, ax=axes, shrink=0.6, aspect=30, pad=0.02, label="share of the true class")
    return figure


def _clear_to(color: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("clear", [to_rgba(color, 0), to_rgba(color, 1)])


def _number(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            size = 10 if count < 1000 else 8
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color="white" if shares[row, column] > 0.5 else INK)


def samples(images: np.ndarray, titles: list[str]) -> Figure:
    """A training batch as the network sees it: (N, H, W, 3) uint8, a title each.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    return _grid(list(images), [short(title, 18) for title in titles], "training pictures, augmented as the network sees them")


def reliability(answers: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How often answers are right, by how sure they were; on the dashed line confidences can be believed.

    Args:
        answers: {label: (N,) confidences and (N,) whether each was right}; the last is the run's own and drawn strongest.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], ":", color=GREY, linewidth=1)
        for place, (label, (confidence, right)) in enumerate(answers.items(), 1):
            own = place == len(answers)
            places, counts = _binned(confidence, right)
            x, y = 100 * places
            axes.plot(x, y, "-" if own else "--", color=BLUE if own else ORANGE, label=label)
            axes.scatter(x, y, s=8 + 80 * counts / counts.max(), color=BLUE if own else ORANGE, alpha=0.8, linewidth=0)
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence (%); larger dots are more pictures")
        axes.set_title("right (%)")
        figure.legend(loc="outside lower center", ncols=1)
    return figure


def _binned(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2, B) mean confidence and share of right answers in each of `BINS` equal bins that holds any, and (B,) their counts."""
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    kept = [places == number for number in range(BINS) if (places == number).any()]
    return np.array([[values[rows].mean() for rows in kept] for values in (confidence, right)]), np.array([rows.sum() for rows in kept])


def seed_curves(histories: dict[str, list[list[dict[str, Any]]]]) -> Figure:
    """Validation accuracy by epoch: a line for the mean over seeds, a band from the least to the greatest.

    Args:
        histories: {label: one list of metrics.jsonl lines a seed}; seeds of unequal length are drawn as far as the shortest.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(NARROW, 3.6), layout="constrained")
        axes = figure.subplots()
        for (label, runs), color, style in zip(histories.items(), cycle(COLORS), cycle(("-", "--", "-.", ":", (0, (1, 1)))), strict=False):
            length = min(len(run) for run in runs)
            values = 100 * np.array([[line["val"]["accuracy"] for line in run[:length]] for run in runs])
            epochs = np.arange(1, length + 1)
            axes.plot(
                epochs,
                values.mean(0),
                color=color,
                linestyle=style,
                label=f"{label} ({number_of(len(runs), 'seed')})",
            )
            axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        several = any(len(runs) > 1 for runs in histories.values())
        axes.set_title(f"validation accuracy (%){': mean of the seeds, and their range' if several else ''}")
        figure.legend(loc="outside lower center", ncols=1)
    return figure


@dataclass(frozen=True)
class Line:
    """A learning curve among others.

    Attributes:
        recipe: The method's, which gives the colour.
        label: For the legend; lines of one label look alike and are named once. "" leaves a line pale and unnamed.
        accuracies: From 0 to 1, by epoch.
    """

    recipe: str
    label: str
    accuracies: Sequence[float]


def run_curves(lines: Sequence[Line]) -> Figure:
    """Validation accuracy of several runs by epoch, in one panel.

    Args:
        lines: Those that matter most first; they are drawn above the others.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    labels = {line.label: line.recipe for line in lines if line.label}
    styles = dict(zip(labels, method_styles(list(labels.values())), strict=True))
    with matplotlib.rc_context(STYLE):
        named = ["\n".join(wrap(short(label, 2 * LEGEND), LEGEND)) for label in labels]
        figure = Figure(figsize=(NARROW, 3.2 + 0.2 * sum(name.count("\n") + 1 for name in named)), layout="constrained")
        axes = figure.subplots()
        for line in reversed(lines):
            color, dashes = styles.get(line.label, (GREY, DASHES[0]))
            epochs = range(1, len(line.accuracies) + 1)
            shares = [100 * accuracy for accuracy in line.accuracies]
            axes.plot(epochs, shares, dashes, color=color, alpha=0.9 if line.label else 0.35, marker="." if len(shares) <= 3 else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_title("validation accuracy (%)")
        marks = [Line2D([], [], color=color, linestyle=dashes) for color, dashes in styles.values()]
        figure.legend(marks, named, loc="outside lower left", ncols=1)
    return figure


def freeze_curve(candidates: list[tuple[str, list[float]]], chosen: int) -> Figure:
    """Validation accuracy against the last frozen stage: a dot a seed, a line through the means, the chosen one marked.

    Args:
        candidates: (last frozen stage, accuracy of each seed), from no stage to all.
        chosen: Position of the chosen one.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, 0.55 * len(candidates) + 2), 4.2), layout="constrained")
        axes = figure.subplots()
        means = [100 * sum(values) / len(values) for _, values in candidates]
        axes.plot(means, color=BLUE, marker="o", markersize=4, label="mean")
        for place, (_, values) in enumerate(candidates):
            axes.plot([place] * len(values), [100 * value for value in values], ".", color=GREY, zorder=1)
        axes.plot(chosen, means[chosen], "o", color=RED, markersize=9, fillstyle="none", markeredgewidth=1.6, label="chosen")
        axes.set_xticks(range(len(candidates)), [name for name, _ in candidates], rotation=45, ha="right")
        axes.set_xlabel("frozen up to")
        axes.set_title("validation accuracy (%) by frozen stages")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def rank_diagram(ranks: dict[str, float], tested: list[list[float]], shades: dict[str, str], over: str) -> Figure:
    """Average ranks of methods, with a bar across those that no test tells apart.

    Args:
        ranks: By method, 1 being the best.
        tested: (methods, methods) p values, in that order.
        shades: Each method's colour.
        over: Over what the ranks are averaged, such as "6 tasks".

    Returns:
        A figure of matplotlib, which the caller closes.

    Raises:
        ImportError: Without scikit-posthocs.
    """
    import pandas
    from scikit_posthocs import critical_difference_diagram

    names = {method: short(method, NAME) for method in ranks}
    table = pandas.DataFrame(tested, index=list(names.values()), columns=list(names.values()))
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(NARROW, 0.9 + 0.28 * len(names)), layout="constrained")
        axes = figure.subplots()
        critical_difference_diagram(
            pandas.Series(list(ranks.values()), index=list(names.values())), table, ax=axes,
            color_palette={name: shades[method] for method, name in names.items()}, crossbar_props={"color": INK},
        )  # fmt: skip
        axes.set_title(f"average rank over {over}\na bar joins what no test tells apart", pad=18)
    return figure


def _grid(images: Sequence[np.ndarray], titles: list[str], heading: str) -> Figure:
    rows = -(-len(images) // COLUMNS)
    lines = 1 + max(title.count("\n") for title in titles)
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.titlelocation": "center"}):
        figure = Figure(figsize=(CELL * COLUMNS, (CELL + 0.2 * lines) * rows + 0.4), layout="constrained")
        figure.suptitle(heading, fontsize=10, x=0.01, ha="left")
        for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
            axes.set_axis_off()
        for axes, image, title in zip(figure.axes, images, titles, strict=False):
            _in_square(axes, image)
            axes.set_title(title)
    return figure


def _in_square(axes: Axes, image: np.ndarray) -> None:
    """Show a picture of any shape in a square, so that the titles of a row stand level."""
    axes.imshow(image)
    height, width = image.shape[:2]
    side = max(height, width)
    axes.set_xlim((width - side) / 2 - 0.5, (width + side) / 2 - 0.5)
    axes.set_ylim((height + side) / 2 - 0.5, (height - side) / 2 - 0.5)
