"""The oracle experiment on paper: every cell of its grid in CSV, Markdown and pictures, with paired tests."""

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from rekindle.errors import number_of
from rekindle.files import csv_text, write_atomic
from rekindle.oracle.experiment import METHODS
from rekindle.oracle.settings import OracleSettings
from rekindle.report.colors import COLORS, GREY
from rekindle.report.figures import STYLE, save
from rekindle.report.statistics import holm, paired_summary

Rows = list[dict[str, Any]]
BASE, SOURCE = "L2", "source"
MEASURES = {
    "test_mse": "test error (MSE)",
    "transport_columns": "transport of W1, by hidden unit",
    "transport_rows": "transport of W1, by input",
}

EXPLANATION = """\
Two teachers share a first layer W1. A network learns the first teacher, gets a fresh head and is fine-tuned on the second. Lower is
better everywhere. Errors are against the second teacher without noise. Transport is the optimal-transport distance (squared Euclidean
cost, equal masses) between W1 and the network's first layer: by hidden unit (columns, which does not change when units are permuted),
and by input (rows, which does). p is from a paired t test over seeds, with Holm's correction over the measure's cells in the table;
wins are seeds below L2."""


def write_oracle(folder: Path, rows: Rows, settings: OracleSettings) -> list[Path]:
    """Write oracle.csv (a line a seed), oracle.md and oracle.png; their paths.

    Returns:
        The three paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = ["noise", "rate", "method", "seed", *MEASURES, "val_mse", "train_mse"]
    shown = [{key: f"{value:.8g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows]
    write_atomic(folder / "oracle.csv", csv_text(keys, [[row.get(key, "") for key in keys] for row in shown]))
    write_atomic(folder / "oracle.md", page(rows, settings))
    save(figure(rows, settings), folder / "oracle.png")
    return [folder / name for name in ("oracle.md", "oracle.csv", "oracle.png")]


def comparisons(rows: Rows, measure: str, at: str = "same") -> Rows:
    """Each method against L2 on the same seeds, in each cell.

    Args:
        rows: As `run_oracle` gives them.
        measure: Of `MEASURES`.
        at: "same" compares at each learning rate; "chosen" gives each method the rate of its least mean validation error.

    Returns:
        Dicts of noise, rate (and base_rate), method, a `paired_summary` (a is L2), percent, wins and holm: p corrected over all
        of the list. Cells where a seed diverged have None in place of numbers.
    """
    found: Rows = []
    for noise in dict.fromkeys(row["noise"] for row in rows):
        cells = {name: {rate: _cell(rows, noise, rate, name) for rate in _rates(rows)} for name in METHODS}
        for name in [name for name in METHODS if name != BASE]:
            pairs = [(rate, rate) for rate in _rates(rows)] if at == "same" else [(chosen_rate(cells[BASE]), chosen_rate(cells[name]))]
            found += [
                {"noise": noise, "rate": rate, "base_rate": base, "method": name, **_pair(cells[BASE][base], cells[name][rate], measure)}
                for base, rate in pairs
            ]
    for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
        row["holm"] = p
    return found


def chosen_rate(cells: dict[float, Rows]) -> float:
    """The learning rate with the least mean error on the validation samples; one that diverged is not chosen.

    Returns:
        One of the rates of the cells.
    """
    means = {rate: mean(row["val_mse"] for row in cell) for rate, cell in cells.items() if all(row["val_mse"] is not None for row in cell)}
    return min(means or cells, key=lambda rate: means.get(rate, rate))


def _rates(rows: Rows) -> list[float]:
    return list(dict.fromkeys(row["rate"] for row in rows if row["rate"] is not None))


def _cell(rows: Rows, noise: float, rate: float | None, method: str) -> Rows:
    cell = [row for row in rows if (row["noise"], row["rate"], row["method"]) == (noise, rate, method)]
    return sorted(cell, key=lambda row: row["seed"])


def _pair(base: Rows, other: Rows, measure: str) -> dict[str, Any]:
    a, b = [row[measure] for row in base], [row[measure] for row in other]
    if None in a or None in b:
        return {
            "mean_a": None,
            "std_a": None,
            "mean_b": None,
            "std_b": None,
            "difference": None,
            "interval": None,
            "n": len(a),
            "p": None,
            "percent": None,
            "wins": None,
        }
    summary = paired_summary(a, b)
    return {**summary, "percent": 100 * summary["difference"] / summary["mean_a"], "wins": sum(y < x for x, y in zip(a, b, strict=True))}


def page(rows: Rows, settings: OracleSettings) -> str:
    """Markdown: settings, the comparison at the rate each method would choose, every cell, and the start.

    Returns:
        Text.
    """
    given = {field.name: getattr(settings, field.name) for field in fields(settings)}
    lines = [
        "# The MLP oracle of the RIFLE paper (section 4.6.2)", "",
        f"`{command(settings)}`", "",
        EXPLANATION, "",
        "Settings: " + "; ".join(f"{name} {_join(value, ', ')}" for name, value in given.items()) + ".", "",
        "![error and transport by learning rate](oracle.png)", "",
        "The paper printed, without saying how: MSE 0.0116 (L2) and 0.00398 (RIFLE), transport 0.1397 and 0.1198.", "",
        "## Each method at the learning rate that its validation error chose", "",
        *_table(comparisons_of_all(rows, "chosen"), own_rates=True),
        "## Every cell", "",
    ]  # fmt: skip
    for measure, title in MEASURES.items():
        lines += [f"### {title[0].upper()}{title[1:]}", "", *_table([(title, row) for row in comparisons(rows, measure)])]
    lines += ["## Where the fine-tuning starts: the source's first layer", "", "| noise | by hidden unit | by input |", "|---|---|---|"]
    for noise in dict.fromkeys(row["noise"] for row in rows):
        start = _cell(rows, noise, None, SOURCE)
        lines.append(f"| {noise:g} | {_spread(start, 'transport_columns')} | {_spread(start, 'transport_rows')} |")
    return "\n".join(lines) + "\n"


def brief(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the short table: each method against L2, both at the learning rates that they would choose.

    Returns:
        (header, lines).
    """
    lines = []
    for title, row in comparisons_of_all(rows, "chosen"):
        cells = _numbers(row).strip("| ").split(" | ")
        lines.append(
            [title, f"{row['noise']:g}", row["method"], f"{row['base_rate']:g}, {row['rate']:g}", *cells, *[""] * (5 - len(cells))]
        )
    return ["measure", "noise", "method", "rates: L2, method", "L2", "method's", "difference (95 %)", "wins", "p (Holm)"], lines


def comparisons_of_all(rows: Rows, at: str) -> list[tuple[str, dict[str, Any]]]:
    """(measure in words, comparison) of every measure.

    Returns:
        Pairs, in the order of the tables.
    """
    return [(title, row) for measure, title in MEASURES.items() for row in comparisons(rows, measure, at)]


def command(settings: OracleSettings) -> str:
    """What to type to get these rows again.

    Returns:
        A line for a shell.
    """
    words = ["rekindle", "analyze", "mlp-oracle"]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value != field.default or field.name == "seeds":
            words += [f"--{field.name.replace('_', '-')}", _join(value, ",")]
    return shlex.join(words)


def _join(value: Any, by: str) -> str:
    return by.join(f"{item:g}" for item in value) if isinstance(value, tuple) else f"{value:g}"


def _table(found: Sequence[tuple[str, dict[str, Any]]], own_rates: bool = False) -> list[str]:
    first, rate = ("| measure ", "rates: L2, method") if own_rates else ("", "rate")
    header = f"{first}| noise | {rate} | method | L2 | method's | difference (95 % interval) | wins | p (Holm) |"
    lines = [header, "|---" * (header.count("|") - 1) + "|"]
    for title, row in found:
        rates = f"{row['base_rate']:g}, {row['rate']:g}" if own_rates else f"{row['rate']:g}"
        head = (f"| {title} " if own_rates else "") + f"| {row['noise']:g} | {rates} | {row['method']} "
        lines.append(head + _numbers(row))
    return [*lines, ""]


def _numbers(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return "| diverged | | | | |"
    scale = 100 / row["mean_a"]
    interval = f" ({scale * row['interval'][0]:+.1f} to {scale * row['interval'][1]:+.1f})" if row["interval"] else ""
    spread = [f"{row[f'mean_{side}']:.5f}" + (f" ± {row[f'std_{side}']:.5f}" if row[f"std_{side}"] is not None else "") for side in "ab"]
    p = "-" if row["holm"] is None else f"{row['holm']:.2g}"
    return f"| {spread[0]} | {spread[1]} | {row['percent']:+.1f} %{interval} | {row['wins']}/{row['n']} | {p} |"


def _spread(cell: Rows, measure: str) -> str:
    values = [row[measure] for row in cell]
    if None in values:
        return "diverged"
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def figure(rows: Rows, settings: OracleSettings) -> Figure:
    """A row of panels a measure, a column a noise: mean and standard deviation of each method by learning rate.

    Returns:
        A figure of matplotlib, which the caller closes.
    """
    noises, rates = list(dict.fromkeys(row["noise"] for row in rows)), _rates(rows)
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(4.6 * len(noises) + 0.4, 8.2), layout="constrained")
        panels = picture.subplots(len(MEASURES), len(noises), squeeze=False, sharex=True, sharey="row")
        for (measure, title), line in zip(MEASURES.items(), panels, strict=True):
            for noise, panel in zip(noises, line, strict=True):
                for place, (name, color) in enumerate(zip(METHODS, COLORS, strict=False)):
                    cells = {rate: [row[measure] for row in _cell(rows, noise, rate, name)] for rate in rates}
                    lost = [rate * 1.06 ** (place - 1) for rate, values in cells.items() if None in values]
                    panel.plot(lost, [0.97] * len(lost), "x", color=color, transform=panel.get_xaxis_transform())
                    cells = {rate: values for rate, values in cells.items() if None not in values}
                    spreads = [stdev(values) if len(values) > 1 else 0.0 for values in cells.values()]
                    # Side by side: the bars of three methods would hide one another.
                    x = [rate * 1.06 ** (place - 1) for rate in cells]
                    panel.errorbar(x, [mean(values) for values in cells.values()], spreads, color=color, marker="o", capsize=2, label=name)
                if measure != "test_mse":
                    start = [row[measure] for row in _cell(rows, noise, None, SOURCE)]
                    panel.axhline(mean(start), color=GREY, linestyle=":", label="at the start")
                panel.set_title(f"{title}, noise {noise:g}")
                panel.set_xscale("log")
                panel.set_xticks(rates, [f"{rate:g}" for rate in rates], minor=False)
                panel.set_xticks([], minor=True)
        for panel in panels[-1]:
            panel.set_xlabel("learning rate")
        named = {label: artist for panel in panels.flat for artist, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        picture.legend(list(named.values()), list(named), loc="outside lower center", ncols=len(named))
        heading = f"mean and standard deviation of {number_of(settings.seeds, 'seed')}, {number_of(settings.epochs, 'epoch')}"
        diverged = "; a cross on top: diverged" if any(None in row.values() for row in rows if row["method"] != SOURCE) else ""
        picture.suptitle(heading + diverged, fontsize=10, x=0.01, ha="left")
    return picture
