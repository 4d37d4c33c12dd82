"""A comparison as a leaderboard: for a terminal, and as rows for a page. Only columns in which runs differ are shown."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from rekindle.report.compare import Comparison
from rekindle.report.compare_rows import Row
from rekindle.report.format import duration, p_value, percent, place_name, short, split_title
from rekindle.report.statistics import LEVEL

if TYPE_CHECKING:
    from rich.console import Group as RichGroup
    from rich.text import Text

PAIRED = "Paired by seed{}, the surest differences first"
Table = tuple[str, list[str], list[list[str]]]
WORDS = ("run", "method", "model", "data", "from → to", "reading", "of the pictures that both classified")
CUT = ("run", "method", "model", "data", "from → to", "of the pictures that both classified")  # Where a terminal is too narrow.
SPARED = ("p", "time")
ARROW, GAP = " → ", 2
NARROW = 80  # Columns of a terminal on which a table must not wrap.
NAME, LEAST_NAME = 40, 8
NO_FOLDS = "-"
PAIRS, NOTES = 5, 2  # On a terminal; all stand in the other forms.
# What may set runs apart, in the order of the columns.
SETTINGS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row["method"],
    "model": lambda row: row["model"].removeprefix("torchvision:"),
    "data": lambda row: place_name(row["data"]),
    "epochs": lambda row: str(row["epochs"]),
    "seed": lambda row: str(row["seed"]),
    "folds": lambda row: str(len(row["folds"])) if row["folds"] else NO_FOLDS,
}


def tables(found: Comparison) -> Iterator[Table]:
    """Title, header and rows of each table, in full.

    Yields:
        (title, header, rows).
    """
    yield _leaderboard(found.runs)
    if any(row["seeds"] > 1 for row in found.methods):
        yield "Mean over seeds", ["method", "seeds", "mean %", "std"], [_method_cells(row) for row in _best_first(found.methods)]
    if any(pair["n"] > 1 for pair in found.pairs):
        folds = any(pair["folds"] for pair in found.pairs)
        header = ["from → to", "pairs" if folds else "seeds", "points", "95 % interval", "p", "p (Holm)", "reading"]
        surest = sorted(found.pairs, key=lambda pair: math.inf if pair["p_holm"] is None else pair["p_holm"])
        yield PAIRED.format(" and fold" if folds else ""), header, [_pair_cells(pair) for pair in surest]
    if found.pictures:
        names = [_name(row) for row in found.runs]
        yield "Picture by picture", ["of the pictures that both classified", "count"], _picture_cells(found.pictures, *names)


def _best_first(methods: list[Row]) -> list[Row]:
    return sorted(methods, key=lambda row: row["mean"], reverse=True)


def to_rich(found: Comparison, width: int = NARROW) -> "RichGroup":
    """Tables that `rich.print` shows, no line of which wraps; of pairs and notes the first.

    Args:
        found: The comparison.
        width: Columns of the terminal.

    Returns:
        A group that a rich console prints.
    """
    from rich import box, table
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for title, header, rows in tables(found):
        kept = rows[:PAIRS] if "reading" in header else rows
        made = table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
        names, cells = _fitted(header, kept, width)
        for name in names:
            made.add_column(Text(name), justify="left" if name in WORDS else "right", no_wrap=True)
        for row in cells:
            made.add_row(*map(Text, row))
        parts += [Text(short(title, width), style="italic"), made, *_more(len(rows) - len(kept), "pairs"), Text("")]
    return Group(*parts, *map(Text, found.notes[:NOTES]), *_more(len(found.notes) - NOTES, "notes"))


def _more(left: int, what: str) -> "list[Text]":
    from rich.text import Text

    return [Text(f"and {left} more {what}: --html or --json.")] if left > 0 else []


def _fitted(header: list[str], rows: list[list[str]], width: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows that fit: without what can be spared, then without options of methods, then with words cut evenly."""
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    for name in SPARED:
        if _width(columns) > width:
            columns.pop(name, None)
    for name in CUT:
        if name in columns and _width(columns) > width:
            columns[name] = _without_options(columns[name])
    wide = {name: max(map(cell_len, (name, *cells))) for name, cells in columns.items()}
    while sum(wide.values()) + GAP * len(wide) > width and any(wide[name] > LEAST_NAME for name in CUT if name in wide):
        wide[max((name for name in CUT if name in wide), key=wide.__getitem__)] -= 1
    cut = [[_cut(cell, wide[name]) for cell in cells] if name in CUT else cells for name, cells in columns.items()]
    return list(columns), [list(row) for row in zip(*cut, strict=True)]


def _width(columns: dict[str, list[str]]) -> int:
    return sum(max(map(cell_len, (name, *cells))) + GAP for name, cells in columns.items())


def _without_options(cells: list[str]) -> list[str]:
    """Recipes without their options, where those tell none apart."""
    shorter = [re.sub(r"\([^()]*\)", "", cell) for cell in cells]
    return shorter if len(set(shorter)) == len(set(cells)) else cells


def _cut(cell: str, width: int) -> str:
    """Cut to a width; of two names with an arrow between, both."""
    first, arrow, second = cell.partition(ARROW)
    if not arrow or len(cell) <= width:
        return short(cell, width)
    half = (width - len(ARROW)) // 2
    left = max(half, width - len(ARROW) - len(second))
    return short(first, left) + arrow + short(second, width - len(ARROW) - min(left, len(first)))


def _leaderboard(found: list[Row]) -> Table:
    """The most accurate run first; a setting that all share is in the title, not in a column."""
    runs = sorted(found, key=lambda row: row["accuracy"], reverse=True)
    cells = {name: [show(row) for row in runs] for name, show in SETTINGS.items()}
    shared = [f"{name} {values[0]}" for name, values in cells.items() if len(runs) > 1 and len(set(values)) == 1 and values[0] != NO_FOLDS]
    shown = {name: values for name, values in cells.items() if len(set(values)) > 1 or (len(runs) == 1 and values[0] != NO_FOLDS)}
    if len({row["probe"] for row in runs}) == 1 < len(runs) and runs[0]["probe"] is not None:
        shared.append(f"linear probe {percent(runs[0]['probe'], 1)} %")
    split = {row["split"] for row in runs}
    measured = {"probe %": [percent(row["probe"], 1) for row in runs], "time": [duration(row["seconds"]) for row in runs]}
    columns = {
        "run": [_name(row) for row in runs],
        **shown,
        "accuracy %": [_accuracy(row, len(split) > 1) for row in runs],
        "95 % interval": [" to ".join(percent(end, 1) for end in row["interval"]) if row["interval"] else "-" for row in runs],
        **{name: values for name, values in measured.items() if len(set(values)) > 1},
    }
    where = f" on {split_title(split.pop())} pictures" if len(split) == 1 else ""
    title = f"Runs by accuracy{where}" + (f"; all: {', '.join(shared)}" if shared else "")
    return title, list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _name(row: Row) -> str:
    """A run's id where its folder's name ends in it, after what other columns say; else that name."""
    name, run_id = Path(row["run"]).name, str(row["id"])
    return run_id if run_id and name.endswith(f"-{run_id}") else short(name, NAME)


def _accuracy(row: Row, named: bool) -> str:
    return percent(row["accuracy"]) + (f" ({split_title(row['split'])})" if named else "")


def _method_cells(row: Row) -> list[str]:
    return [row["method"], str(row["seeds"]), percent(row["mean"]), percent(row["std"])]


def _pair_cells(pair: Row) -> list[str]:
    interval = "-" if pair["low"] is None else f"{100 * pair['low']:+.2f} to {100 * pair['high']:+.2f}"
    points = f"{100 * pair['difference']:+.2f}"
    return [
        f"{pair['from']}{ARROW}{pair['to']}",
        str(pair["n"]),
        points,
        interval,
        p_value(pair["p"]),
        p_value(pair["p_holm"]),
        _reading(pair),
    ]


def _reading(pair: Row) -> str:
    """A word on a paired difference; none that its p after Holm's correction does not carry."""
    if pair["p_holm"] is None:
        return "no interval: one seed" if pair["n"] == 1 else "no interval: no spread"
    if pair["p_holm"] >= LEVEL:
        return "no clear difference"
    return "higher" if pair["difference"] > 0 else "lower"


def _picture_cells(pictures: Row, first: str, second: str) -> list[list[str]]:
    names = {
        "both right": "both_right",
        f"only {first} right": "only_first_right",
        f"only {second} right": "only_second_right",
        "both wrong": "both_wrong",
    }
    counts = [[text, str(pictures[key])] for text, key in names.items()]
    points = [f"{second} minus {first} (points)", f"{100 * pictures['difference']:+.2f}"]
    return [*counts, points, ["McNemar's exact p", p_value(pictures["p"])]]
