"""From the runs of a study to numbers: means over seeds, paired differences in each setting, tests over tasks.

A failed or missing run is never averaged away: each mean carries how many of the planned runs it rests on, and only methods
with all their runs in a setting enter the tests over tasks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from statistics import mean, median, stdev
from typing import Any

from rekindle.report.results import final_split
from rekindle.report.statistics import (
    LEVEL,
    average_ranks,
    holm,
    nonzero,
    paired_summary,
    rank_tests,
    scores_by_task,
    smallest_p,
    wilcoxon_over_tasks,
)
from rekindle.study.grid import Cell, Group, Setting
from rekindle.study.store import Study


@dataclass(frozen=True)
class Outcome:
    """One run of a study.

    Attributes:
        seed: Its seed.
        candidate: The values of the method's own grid; "" where there is none.
        state: "done", "failed", or whatever keeps it from being done.
        accuracy: On `split`, from 0 to 1; None unless done.
        split: "test", or "val" where the data have no test split.
        val: Validation accuracy; None where there is no validation split.
        lr: Learning rate.
        seconds: Of training.
        run: Run folder, relative to the study's.
        error: Why it failed.
    """

    seed: int
    candidate: str
    state: str
    accuracy: float | None = None
    split: str = ""
    val: float | None = None
    lr: float | None = None
    seconds: float | None = None
    run: str = ""
    error: str = ""


@dataclass
class Entry:
    """A method in a setting.

    Attributes:
        setting: Task, size and regulariser.
        method: Its name.
        candidate: What the selection chose; "" for a method without a grid, None where no candidate could be chosen yet.
        candidates: How many there were.
        outcomes: The final runs of that candidate, by seed.
        pair: `paired_summary` against the baseline over shared seeds, with low, high and p_holm (Holm over all
            entries of the study but the baseline's); None for the baseline itself and where there is no shared seed.
        verdict: "higher" or "lower" than the baseline where that is significant after Holm, or "".
    """

    setting: Setting
    method: str
    candidate: str | None
    candidates: int
    outcomes: list[Outcome]
    pair: dict[str, Any] | None = None
    verdict: str = ""

    @property
    def done(self) -> list[Outcome]:
        """Runs with a result."""
        return [outcome for outcome in self.outcomes if outcome.accuracy is not None]

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(outcome.state == "failed" for outcome in self.outcomes)

    @property
    def complete(self) -> bool:
        """Whether every planned run has a result."""
        return bool(self.outcomes) and len(self.done) == len(self.outcomes)

    @cached_property
    def accuracies(self) -> list[float]:
        """One a finished seed."""
        return [outcome.accuracy for outcome in self.outcomes if outcome.accuracy is not None]

    @property
    def mean(self) -> float | None:
        """Mean accuracy over the finished seeds."""
        return mean(self.accuracies) if self.accuracies else None

    @property
    def std(self) -> float | None:
        """Their standard deviation (ddof 1); None for fewer than two."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def seconds(self) -> float | None:
        """Median training time of a run."""
        return median(outcome.seconds or 0.0 for outcome in self.done) if self.done else None

    @property
    def seeds(self) -> str:
        """ "5", or "4 of 5, 1 failed"."""
        if self.complete:
            return str(len(self.outcomes))
        return f"{len(self.done)} of {len(self.outcomes)}" + (f", {self.failed} failed" if self.failed else "")


@dataclass(frozen=True)
class Overall:
    """The methods of one regulariser over tasks.

    Attributes:
        regularizer: Its name; "" where the study has none.
        rows: For each method but the baseline: method, tasks, difference (mean over tasks), wins, ties and losses (settings in which it is
            significantly better, not clearly different, or significantly worse), positive (tasks with a difference above 0), p, p_holm
            (over the rows of all regularisers), smallest_p (of so many tasks as differ).
        ranks: {method: average rank} over the tasks where all methods have all runs; empty where there is none.
        ranked: How many tasks those are.
        tests: `rank_tests` of those, or None.
        left_out: Settings that no test counts for a method, since runs are missing or failed.
    """

    regularizer: str
    rows: list[dict[str, Any]]
    ranks: dict[str, float]
    ranked: int
    tests: tuple[float, list[list[float]]] | None
    left_out: list[str]


@dataclass
class StudyNumbers:
    """All numbers of a study's report.

    Attributes:
        study: Whose.
        entries: A method in a setting each.
        overall: One for each regulariser.
        selections: For each method with a grid: setting, method, scores ({candidate: validation accuracies}, None for a failed run), chosen.
        test_selected: For each such method, where the grid asks for it: setting, method, candidate, mean, std, seeds, of the candidate that
            is best on the test split.
        costs: For each method: seconds (all its final runs), selection (runs to choose), runs, ratio (median over settings of a run's time
            to the baseline's; None where neither has runs).
    """

    study: Study
    entries: list[Entry]
    overall: list[Overall] = field(default_factory=list)
    selections: list[dict[str, Any]] = field(default_factory=list)
    test_selected: list[dict[str, Any]] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def baseline(self) -> str:
        """The method that the others are compared with."""
        return self.study.grid.baseline

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods in the grid's order."""
        return self.study.grid.methods

    @property
    def regularizers(self) -> list[str]:
        """Their names in the grid's order."""
        return list(dict.fromkeys(entry.setting.regularizer for entry in self.entries))

    @cached_property
    def by_place(self) -> dict[tuple[Setting, str], Entry]:
        """Entries by setting and method."""
        return {(entry.setting, entry.method): entry for entry in self.entries}

    def of(self, regularizer: str) -> list[Entry]:
        """Entries of one regulariser.

        Returns:
            Entries, in the order of the grid.
        """
        return [entry for entry in self.entries if entry.setting.regularizer == regularizer]

    @property
    def failures(self) -> list[tuple[Entry, Outcome]]:
        """Failed runs."""
        return [(entry, outcome) for entry in self.entries for outcome in entry.outcomes if outcome.state == "failed"]

    @property
    def splits(self) -> set[str]:
        """The splits that accuracies were measured on."""
        return {outcome.split for entry in self.entries for outcome in entry.done}


def study_numbers(study: Study) -> StudyNumbers:
    """Read every finished run of a study.

    Returns:
        Accuracies, differences and tests of every setting.
    """
    entries = [_entry(study, group) for group in study.groups]
    numbers = StudyNumbers(study, entries)
    _pair_up(numbers)
    numbers.overall = [_overall(numbers, regularizer) for regularizer in numbers.regularizers]
    _correct([row for overall in numbers.overall for row in overall.rows])
    numbers.selections = [_selection(study, group) for group in study.groups if group.searches]
    numbers.test_selected = [
        row for group in study.groups if group.searches and group.selection.test_selected and (row := _test_selected(study, group))
    ]
    numbers.costs = [_cost(numbers, method) for method in numbers.methods]
    return numbers


def _entry(study: Study, group: Group) -> Entry:
    chosen = study.chosen(group)
    if chosen is not None:
        outcomes = [_outcome(study, cell) for cell in group.final_cells[chosen]]
    else:
        open_, why = study.selecting(group), "every candidate has a failed run, so none could be chosen"
        outcomes = [Outcome(seed, "", "waiting" if open_ else "failed", error="" if open_ else why) for seed in group.seeds]
    return Entry(group.setting, group.method, chosen, len(group.candidates), outcomes)


def _outcome(study: Study, cell: Cell) -> Outcome:
    state = study.state(cell)
    if state != "done":
        error = str(study.record(cell.key).get("error") or "") if state == "failed" else ""
        return Outcome(cell.spec.seed, cell.candidate, state, error=error)
    result = study.result(cell)
    split = final_split(result)
    return Outcome(
        cell.spec.seed, cell.candidate, state, result[split]["accuracy"], split, result.get("val", {}).get("accuracy"), result["lr"],
        result["timing"]["seconds"], str(study.record(cell.key)["run"]),
    )  # fmt: skip


def _pair_up(numbers: StudyNumbers) -> None:
    """Fill in differences from the baseline and their verdicts: all that the report may call significant is one family of tests."""
    others = [entry for entry in numbers.entries if entry.method != numbers.baseline]
    for entry in others:
        base = numbers.by_place.get((entry.setting, numbers.baseline))
        entry.pair = _paired(base, entry) if base else None
    pairs = [entry.pair or {"p": None} for entry in others]
    _correct(pairs)
    for entry, pair in zip(others, pairs, strict=True):
        if pair["p_holm"] is not None and pair["p_holm"] < LEVEL:
            entry.verdict = "higher" if pair["difference"] > 0 else "lower"


def _correct(rows: list[dict[str, Any]]) -> None:
    """Set p_holm from p, over all rows together."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p


def _paired(base: Entry, entry: Entry) -> dict[str, Any] | None:
    first, second = ({outcome.seed: outcome.accuracy for outcome in which.done} for which in (base, entry))
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    numbers = paired_summary([first[seed] or 0.0 for seed in seeds], [second[seed] or 0.0 for seed in seeds])
    low, high = numbers.pop("interval") or (None, None)
    each = [(second[seed] or 0.0) - (first[seed] or 0.0) for seed in seeds]
    return {**numbers, "low": low, "high": high, "seeds": seeds, "each": each}


def _overall(numbers: StudyNumbers, regularizer: str) -> Overall:
    entries = numbers.of(regularizer)
    left_out = [f"{entry.method} in {entry.setting} (runs: {entry.seeds})" for entry in entries if not entry.complete]
    rows = [row for method in numbers.methods if method != numbers.baseline and (row := _over_tasks(numbers, entries, method))]
    methods, scores = _ranked_scores(numbers, entries)
    ranks = dict(zip(methods, average_ranks(scores), strict=True)) if scores else {}
    return Overall(regularizer, rows, ranks, len(scores), rank_tests(scores), left_out)


def _over_tasks(numbers: StudyNumbers, entries: list[Entry], method: str) -> dict[str, Any] | None:
    """One difference a task, averaged over its sizes."""
    differences: dict[str, list[float]] = {}
    verdicts = []
    for entry in entries:
        base = numbers.by_place.get((entry.setting, numbers.baseline))
        if entry.method == method and entry.complete and base and base.complete and entry.pair:
            differences.setdefault(entry.setting.task, []).append(entry.pair["difference"])
            verdicts.append(entry.verdict)
    if not differences:
        return None
    tasks = [mean(values) for values in differences.values()]
    return {
        "method": method, "tasks": len(tasks), "difference": mean(tasks), "positive": sum(value > 0 for value in tasks),
        "wins": verdicts.count("higher"), "ties": verdicts.count(""), "losses": verdicts.count("lower"),
        "p": wilcoxon_over_tasks(tasks), "smallest_p": smallest_p(len(nonzero(tasks))), "p_holm": None,
    }  # fmt: skip


def _ranked_scores(numbers: StudyNumbers, entries: list[Entry]) -> tuple[list[str], list[list[float]]]:
    """(tasks, methods) mean accuracies, over the settings in which every method of this regulariser has all runs."""
    methods = [method for method in numbers.methods if any(entry.method == method for entry in entries)]
    found = {(entry.setting, entry.method): entry.mean or 0.0 for entry in entries if entry.complete}
    return methods, list(scores_by_task(found, methods).values())


def _selection(study: Study, group: Group) -> dict[str, Any]:
    return {"setting": group.setting, "method": group.method, "scores": study.selection_scores(group), "chosen": study.chosen(group)}


def _test_selected(study: Study, group: Group) -> dict[str, Any] | None:
    """The candidate that is best on the test split, which is optimistic; only where all candidates have all runs."""
    tried = [
        Entry(group.setting, group.method, name, 1, [_outcome(study, cell) for cell in cells]) for name, cells in group.final_cells.items()
    ]
    if not all(entry.complete for entry in tried):
        return None
    best = max(tried, key=lambda entry: entry.mean or 0.0)
    return {
        "setting": group.setting,
        "method": group.method,
        "candidate": best.candidate,
        "mean": best.mean,
        "std": best.std,
        "seeds": best.seeds,
    }


def _cost(numbers: StudyNumbers, method: str) -> dict[str, Any]:
    mine = [entry for entry in numbers.entries if entry.method == method]
    ratios = []
    for entry in mine:
        base = numbers.by_place.get((entry.setting, numbers.baseline))
        if base and base.seconds and entry.seconds:
            ratios.append(entry.seconds / base.seconds)
    groups = [group for group in numbers.study.groups if group.method == method]
    choosing = [_outcome(numbers.study, cell) for group in groups for cell in group.selection_cells]
    return {
        "method": method, "runs": sum(len(entry.done) for entry in mine), "ratio": median(ratios) if ratios else None,
        "candidates": max((entry.candidates for entry in mine), default=0),
        "seconds": _seconds(outcome for entry in mine for outcome in entry.done), "selection": _seconds(choosing),
    }  # fmt: skip


def _seconds(outcomes: Iterable[Outcome]) -> float:
    return sum(outcome.seconds or 0.0 for outcome in outcomes)
