"""Figures of a study: learning curves, paired differences, critical differences of ranks."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rekindle.errors import UserError, number_of
from rekindle.records import read_history
from rekindle.report.colors import method_styles
from rekindle.report.figures import INK, NAME, NARROW, STYLE, rank_diagram
from rekindle.report.format import short
from rekindle.study.grid import Setting
from rekindle.study.report.numbers import Entry, Outcome, Overall, StudyNumbers

# Points on either side of 0 that a panel of differences shows at least, so that small ones look small.
LEAST_RANGE = 1.0
# More bands than these would lie over each other; then each curve has its spread at its end instead.
BANDS = 3
# Letters of a method's name in a legend of two columns.
LEGEND = 20


def color(numbers: StudyNumbers, method: str) -> tuple[str, str]:
    """A method's colour and line style, the same in every figure.

    Returns:
        (colour, dash).
    """
    recipes = {group.method: next(iter(group.candidates.values())).get("method", group.method) for group in numbers.study.grid.groups}
    styles = method_styles([recipes.get(name, name) for name in numbers.methods])
    return styles[numbers.methods.index(method)]


def curves(numbers: StudyNumbers, setting: Setting) -> Figure | None:
    """Validation accuracy by epoch: mean over seeds, and from lowest to highest as a band, or at the end where there are many curves.

    A method's marks have the id "curve-NUMBER-…", by which the page switches them. None where no finished run has a validation split.

    Returns:
        A figure of matplotlib, or None.
    """
    histories = {
        number: found
        for number, method in enumerate(numbers.methods)
        if (entry := numbers.by_place.get((setting, method))) and len(found := _histories(numbers, entry))
    }
    if not histories:
        return None
    with matplotlib.rc_context(STYLE):
        lines = -(-len(histories) // 2)
        figure = Figure(figsize=(NARROW, 2.9 + 0.2 * lines), layout="constrained")
        axes = figure.subplots()
        for place, (number, values) in enumerate(histories.items()):
            method = numbers.methods[number]
            shade, dashes = color(numbers, method)
            name = f"curve-{number}-{numbers.study.grid.settings.index(setting)}"
            epochs = np.arange(values.shape[1]) + 1
            label = f"{short(method, LEGEND)} ({len(values)})"
            axes.plot(epochs, values.mean(0), dashes, color=shade, label=label, linewidth=1.3)[0].set_gid(f"{name}-line")
            if len(values) > 1 and len(histories) <= BANDS:
                axes.fill_between(epochs, values.min(0), values.max(0), color=shade, alpha=0.12, linewidth=0).set_gid(f"{name}-band")
            elif len(values) > 1:
                end = epochs[-1] * (1.02 + 0.018 * place)
                axes.plot([end, end], [values[:, -1].min(), values[:, -1].max()], "-", color=shade, linewidth=2)[0].set_gid(
                    f"{name}-spread"
                )
        axes.set_title(f"validation accuracy (%)\n{short(str(setting), 48)}")
        axes.set_xlabel("epoch")
        _scale(axes, list(histories.values()))
        figure.legend(loc="outside lower left", ncols=2, fontsize=9, handlelength=1.6, columnspacing=1.2)
    return figure


def _scale(axes: Axes, histories: list[np.ndarray]) -> None:
    """Ticks at the epochs that there are, and heights in which curves that end close together can be told apart: the first steep quarter may
    begin below the frame."""
    epochs = max(values.shape[1] for values in histories)
    ticks = MaxNLocator(6, integer=True, min_n_ticks=1).tick_values(1, epochs)
    axes.set_xticks([int(tick) for tick in ticks if 1 <= tick <= epochs])
    low = min(values[:, values.shape[1] // 4 :].min() for values in histories)
    high = max(values.max() for values in histories)
    margin = max(LEAST_RANGE, 0.05 * (high - low))
    axes.set_ylim(max(-1.0, low - margin), high + margin)


def _histories(numbers: StudyNumbers, entry: Entry) -> np.ndarray:
    """(seeds, epochs) validation accuracy in percent, as long as the shortest; of no seeds where no run has a validation split."""
    found = list(filter(None, (_history(numbers, outcome) for outcome in entry.done if outcome.val is not None)))
    length = min(map(len, found), default=0)
    return 100 * np.array([history[:length] for history in found])


def _history(numbers: StudyNumbers, outcome: Outcome) -> list[float]:
    """Validation accuracy by epoch; empty where the run's file is damaged, which the study then knows."""
    run = numbers.study.folder / outcome.run
    try:
        return [line["val"]["accuracy"] for line in read_history(run) if "val" in line]
    except UserError as error:
        numbers.study.faults[run / "metrics.jsonl"] = str(error)
        return []


def differences(numbers: StudyNumbers) -> Figure | None:
    """Paired differences from the baseline with 95 % intervals, a panel for each setting, a pale dot for each seed; None where there is no pair.

    Returns:
        A figure of matplotlib, or None.
    """
    blocks = [
        (setting, [entry for entry in numbers.entries if entry.setting == setting and entry.pair])
        for setting in numbers.study.grid.settings
    ]
    blocks = [(setting, entries) for setting, entries in blocks if entries]
    if not blocks:
        return None
    sizes = [len(entries) for _, entries in blocks]
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(NARROW, 0.6 + sum(0.24 * size + 0.62 for size in sizes)), layout="constrained")
        panels = figure.subplots(len(blocks), squeeze=False, height_ratios=[size + 0.4 for size in sizes])[:, 0]
        for axes, (setting, entries) in zip(panels, blocks, strict=True):
            axes.set_title(short(str(setting), 48), loc="left", fontsize=9, fontweight="bold")
            for y, entry in enumerate(entries):
                _difference(axes, numbers, entry, y)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.set_yticks(range(len(entries)), [f"{short(entry.method, LEGEND)} ({(entry.pair or {})['n']})" for entry in entries])
            axes.tick_params(labelsize=9)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(entries) - 0.5, -0.7)
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, -LEAST_RANGE), max(high, LEAST_RANGE))
        scales = "\neach panel has its own scale" if len(blocks) > 1 else ""
        panels[-1].set_xlabel(f"points above {short(numbers.baseline, NAME)}{scales}", fontsize=9)
    return figure


def _difference(axes: Axes, numbers: StudyNumbers, entry: Entry, y: int) -> None:
    pair = entry.pair or {}
    shade = color(numbers, entry.method)[0]
    axes.plot([100 * value for value in pair["each"]], [y] * pair["n"], "o", color=shade, alpha=0.3, markersize=3)
    if pair["low"] is not None:
        axes.plot([100 * pair["low"], 100 * pair["high"]], [y, y], "-", color=shade, linewidth=1.6)
    axes.plot([100 * pair["difference"]], [y], "o", color=shade, markersize=6, markerfacecolor=shade if entry.verdict else "none")


def critical_difference(numbers: StudyNumbers, overall: Overall) -> Figure | None:
    """Average ranks of a study's methods; None where there are too few tasks or methods.

    Returns:
        A figure of matplotlib, or None.

    Raises:
        ImportError: Without scikit-posthocs.
    """
    if not overall.tests:
        return None
    shades = {method: color(numbers, method)[0] for method in overall.ranks}
    over = number_of(overall.ranked, "task") + (f", {overall.regularizer}" if overall.regularizer else "")
    return rank_diagram(overall.ranks, overall.tests[1], shades, over)


def palette(numbers: StudyNumbers) -> dict[str, str]:
    """Each method's colour.

    Returns:
        Colours by method.
    """
    return {method: color(numbers, method)[0] for method in numbers.methods}
