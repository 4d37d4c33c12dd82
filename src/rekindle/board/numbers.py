"""What the rows of a board say: each method at its best in each setting, and against plain fine-tuning at its best."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from rekindle.board.row import Row, parts_of
from rekindle.report.statistics import LEVEL, average_ranks, holm, paired_summary, rank_tests, scores_by_task, wilcoxon_over_tasks

APART = ("val_fraction", "test_every_epoch", "record", "precision", "devices")  # Settings that make no other candidate of a method.
# Settings that decide the pictures, beside the task's name, `per_class`, and the seed.
PICTURES = (
    "fraction", "test_fraction", "group_column", "group_pattern", "image_column", "label_column", "split_column", "exclude", "defaults",
)  # fmt: skip
PLAIN = "l2"  # Plain fine-tuning: the loss and weight decay.


@dataclass(frozen=True, order=True)
class Setting:
    """Where methods compete: the same pictures and the same network.

    Attributes:
        task: Name of the data.
        network: Name of the network.
        weights: That it began with.
        image_size: 0 for the network's own.
        per_class: 0 for all.
        pictures: What else decides which pictures train and test, as it is typed.
    """

    task: str
    network: str
    weights: str
    image_size: int
    per_class: int
    pictures: str = ""

    def __str__(self) -> str:
        size = f"{self.per_class} a class" if self.per_class else "all pictures"
        return f"{self.task}, {f'{size} {self.pictures}'.rstrip()}, {self.network}" + (f" at {self.image_size}" if self.image_size else "")


@dataclass
class Standing:
    """A method at its best in a setting.

    Attributes:
        setting: Task, network, sizes.
        method: Names of the recipe's parts, and of its direction unless that is the plain sum.
        candidate: The recipe and settings that were chosen, as text.
        candidates: Among how many.
        chosen_by: How: "validation" (the mean over runs that have not read the test split, or else over the final ones), or "" for one.
        tests: {seed: test accuracy}.
        pair: `paired_summary` against plain fine-tuning over shared seeds; None for itself, or where there is none.
        verdict: "higher", "lower" (significant after Holm over the whole board), or "".
    """

    setting: Setting
    method: str
    candidate: str
    candidates: int
    chosen_by: str
    tests: dict[int, float]
    pair: dict[str, Any] | None = None
    verdict: str = ""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.tests.values())

    @property
    def std(self) -> float | None:
        """Standard deviation (ddof 1) over seeds; None for one."""
        return stdev(self.tests.values()) if len(self.tests) > 1 else None


@dataclass
class Board:
    """All that the page shows.

    Attributes:
        rows: What it rests on.
        standings: By setting, then from the highest to the lowest.
        overall: For each method but plain fine-tuning: method, tasks, settings, difference (mean over tasks), low, high (its 95 % t interval
            over tasks, None for fewer than two), wins, ties, losses, p (Wilcoxon over tasks, from six that differ on), p_holm, candidates.
        ranks: {method: average rank} over the tasks in which all of these were run.
        ranked: Those tasks.
        tests: `rank_tests` of them, or None.
        notes: What could not be compared.
    """

    rows: list[Row]
    standings: list[Standing]
    overall: list[dict[str, Any]] = field(default_factory=list)
    ranks: dict[str, float] = field(default_factory=dict)
    ranked: list[str] = field(default_factory=list)
    tests: tuple[float, list[list[float]]] | None = None
    notes: list[str] = field(default_factory=list)


def board_of(rows: list[Row]) -> Board:
    """Compare the methods of a board's rows.

    Returns:
        Differences of each method from plain fine-tuning, in each setting and over all.
    """
    places: dict[tuple[Setting, str], list[Row]] = defaultdict(list)
    for row in rows:
        places[_setting(row), label(row["method"], row["direction"])].append(row)
    board = Board(rows, [])
    for (setting, method), mine in sorted(places.items()):
        standing = _standing(setting, method, mine)
        if standing is None:
            board.notes.append(f"{method} in {setting}: its best candidate on validation has no test accuracy, so it is left out.")
        else:
            board.standings.append(standing)
    board.standings.sort(key=lambda standing: (standing.setting, -standing.mean))
    _pair_up(board)
    methods = dict.fromkeys(standing.method for standing in board.standings if standing.pair)
    board.overall = sorted((_over_tasks(board, method) for method in methods), key=lambda row: -row["difference"])
    for line, p in zip(board.overall, holm([line["p"] for line in board.overall]), strict=True):
        line["p_holm"] = p
    _rank(board)
    return board


def label(recipe: str, direction: str) -> str:
    """What a method is called on the board: its parts without their options, since those are among what it chooses.

    Returns:
        Such as "l2_sp+rifle" or "l2_sp, dtnh".

    Examples:
        >>> label("l2(alpha=0.01)+rifle(periods=4)", "plain_sum"), label("l2_sp", "dtnh(granularity='layer')")
        ('l2+rifle', 'l2_sp, dtnh')
    """
    rule = direction.partition("(")[0]
    return "+".join(parts_of(recipe)) + ("" if rule == "plain_sum" else f", {rule}")


def _setting(row: Row) -> Setting:
    settings = row["settings"]
    pictures = " ".join(f"--{name.replace('_', '-')} {settings[name]}" for name in PICTURES if name in settings)
    return Setting(row["task"], row["network"], row["weights"], row["image_size"] or 0, row["per_class"] or 0, pictures)


def _standing(setting: Setting, method: str, rows: list[Row]) -> Standing | None:
    """A method's best candidate, by validation alone."""
    candidates: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rule = "" if row["direction"] == "plain_sum" else f", {row['direction']}"
        settings = {name: value for name, value in row["settings"].items() if name not in (*APART, *PICTURES)}
        candidates[f"{row['method']}{rule} {json.dumps(settings, sort_keys=True)}"].append(row)
    scores = {name: _validation(mine) for name, mine in candidates.items()}
    known = {name: score for name, score in scores.items() if score is not None}
    if len(candidates) > 1 and not known:
        return None
    tested = {name for name, mine in candidates.items() if any("test" in row for row in mine)}
    # Of equals one that was run to the end: a study runs one of them alone.
    best = max(known, key=lambda name: (known[name], name in tested)) if len(candidates) > 1 else next(iter(candidates))
    tests = {row["seed"]: row["test"] for row in candidates[best] if "test" in row}
    chosen_by = "validation" if len(candidates) > 1 else ""
    return Standing(setting, method, best, len(candidates), chosen_by, tests) if tests else None


def _validation(rows: list[Row]) -> float | None:
    """Mean validation accuracy of a candidate: of the runs that have not read the test split, if there are any."""
    choosing = [row["val"] for row in rows if "val" in row and "test" not in row]
    found = choosing or [row["val"] for row in rows if "val" in row]
    return mean(found) if found else None


def _pair_up(board: Board) -> None:
    plain = {standing.setting: standing for standing in board.standings if standing.method == PLAIN}
    alone = sorted({str(standing.setting) for standing in board.standings if standing.setting not in plain})
    board.notes += [f"{setting}: there is no plain fine-tuning ({PLAIN}) to compare with." for setting in alone]
    pairs = []
    for standing in board.standings:
        base = plain.get(standing.setting)
        shared = sorted(standing.tests.keys() & base.tests.keys()) if base is not None and standing is not base else []
        if base is not None and shared:
            standing.pair = paired_summary([base.tests[seed] for seed in shared], [standing.tests[seed] for seed in shared])
            pairs.append((standing, standing.pair))
    for (standing, pair), p in zip(pairs, holm([pair["p"] for _, pair in pairs]), strict=True):
        pair["p_holm"] = p
        if p is not None and p < LEVEL:
            standing.verdict = "higher" if pair["difference"] > 0 else "lower"


def _over_tasks(board: Board, method: str) -> dict[str, Any]:
    mine = [standing for standing in board.standings if standing.method == method and standing.pair]
    by_task: dict[str, list[float]] = defaultdict(list)
    for standing in mine:
        by_task[standing.setting.task].append((standing.pair or {})["difference"])
    tasks = [mean(values) for values in by_task.values()]
    low, high = paired_summary([0.0] * len(tasks), tasks)["interval"] or (None, None)
    verdicts = [standing.verdict for standing in mine]
    return {
        "method": method, "tasks": len(tasks), "settings": len(mine), "difference": mean(tasks), "low": low, "high": high,
        "wins": verdicts.count("higher"), "ties": verdicts.count(""), "losses": verdicts.count("lower"),
        "p": wilcoxon_over_tasks(tasks), "p_holm": None, "candidates": max(standing.candidates for standing in mine),
    }  # fmt: skip


def _rank(board: Board) -> None:
    """Ranks of the methods that were run on the most tasks, over the settings in which all of them were; one score a task."""
    found = {(standing.setting, standing.method): standing.mean for standing in board.standings}
    tasks: dict[str, set[str]] = defaultdict(set)
    for setting, method in found:
        tasks[method].add(setting.task)
    most = max(map(len, tasks.values()), default=0)
    methods = sorted(method for method in tasks if len(tasks[method]) == most)
    scores = scores_by_task(found, methods)
    if len(methods) > 1 and scores:
        table = list(scores.values())
        board.ranked, board.tests = list(scores), rank_tests(table)
        board.ranks = dict(zip(methods, average_ranks(table), strict=True))
