"""Figures of a study: learning curves, paired differences, critical differences of ranks."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rekindle.errors import UserError, number_of
from rekindle.records import read_history
from rekindle.report.colors import method_styles
from rekindle.report.figures import INK, NAME, STYLE, rank_diagram
from rekindle.report.format import short
from rekindle.study.grid import Setting
from rekindle.study.report.numbers import Entry, Outcome, Overall, StudyNumbers

# Points on either side of 0 that a panel of differences shows at least, so that small ones look small.
LEAST_RANGE = 1.0


def color(numbers: StudyNumbers, method: str) -> tuple[str, str]:
    """A method's colour and line style, the same in every figure.

    Returns:
        (colour, dash).
    """
    recipes = {group.method: next(iter(group.candidates.values())).get("method", group.method) for group in numbers.study.grid.groups}
    styles = method_styles([recipes.get(name, name) for name in numbers.methods])
    return styles[numbers.methods.index(method)]


def curves(numbers: StudyNumbers, setting: Setting) -> Figure | None:
    """Validation accuracy by epoch: mean over seeds, and the band from lowest to highest. A method's marks have the id "curve-NUMBER-…",
    by which the page switches them. None where no finished run has a validation split.

    Returns:
        A figure of matplotlib, or None.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate(numbers.methods):
            entry = numbers.by_place.get((setting, method))
            if entry and any(outcome.val is not None for outcome in entry.done):
                _curve(axes, numbers, entry, f"curve-{number}-{numbers.study.grid.settings.index(setting)}")
        axes.set_title(f"validation accuracy (%): {short(str(setting), 60)}")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if not axes.lines:
            return None
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def _curve(axes: Axes, numbers: StudyNumbers, entry: Entry, name: str) -> None:
    histories = list(filter(None, (_history(numbers, outcome) for outcome in entry.done if outcome.val is not None)))
    if not histories:
        return
    length = min(map(len, histories))
    values = 100 * np.array([history[:length] for history in histories])
    epochs = np.arange(length) + 1
    shade, dashes = color(numbers, entry.method)
    (line,) = axes.plot(epochs, values.mean(0), dashes, color=shade, label=f"{short(entry.method, NAME)} ({len(histories)})")
    line.set_gid(f"{name}-line")
    if len(histories) > 1:
        axes.fill_between(epochs, values.min(0), values.max(0), color=shade, alpha=0.12, linewidth=0).set_gid(f"{name}-band")


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
        figure = Figure(figsize=(8, 0.5 + sum(0.24 * size + 0.62 for size in sizes)), layout="constrained")
        panels = figure.subplots(len(blocks), squeeze=False, height_ratios=[size + 0.4 for size in sizes])[:, 0]
        for axes, (setting, entries) in zip(panels, blocks, strict=True):
            axes.set_title(short(str(setting), 70), loc="left", fontsize=9, fontweight="bold")
            for y, entry in enumerate(entries):
                _difference(axes, numbers, entry, y)
            axes.axvline(0, color=INK, linewidth=0.8)
            axes.set_yticks(range(len(entries)), [f"{short(entry.method, NAME)} ({(entry.pair or {})['n']})" for entry in entries])
            axes.tick_params(labelsize=8)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(entries) - 0.5, -0.7)
            low, high = axes.get_xlim()
            axes.set_xlim(min(low, -LEAST_RANGE), max(high, LEAST_RANGE))
        scales = "; each panel has its own scale" if len(blocks) > 1 else ""
        panels[-1].set_xlabel(f"difference from {short(numbers.baseline, NAME)} (points{scales})")
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
