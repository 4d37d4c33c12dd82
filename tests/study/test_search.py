"""Continuous settings: proposed by Optuna from finished runs alone, within equal budgets, on validation, resumable."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.errors import UserError
from rekindle.study.grid_file import from_dict
from rekindle.study.plan import plan
from rekindle.study.report.page import write
from rekindle.study.search import Range, Search
from rekindle.study.store import Study
from rekindle.study.worker import run_cell
from tests.study import fakes

BEST, TRIALS, SEEDS = 0.03, 6, 2
LR = {"lr": {"low": 1e-4, "high": 1.0}}


def grid(**changes: Any) -> dict[str, Any]:
    methods = {
        "Original": "l2",
        "RIFLE": {"method": "l2+rifle(periods={periods})", "grid": {"periods": {"low": 2, "high": 9, "log": False}}},
    }
    return {
        **copy.deepcopy(fakes.GRID), "sizes": [10], "regularizers": {"L2": "l2"}, "tasks": {"cats": {"data": "cats"}}, "seeds": 2,
        "methods": methods, "shared": LR, "selection": {"seeds": SEEDS, "trials": TRIALS}, **changes,
    }  # fmt: skip


def by_rate(cell: Any, runs: Path, listener: Any) -> Path:
    """A run that is the better the closer its rate is to the best."""
    fakes.count(cell, runs)
    return fakes.write(cell, runs, round(0.9 - 0.1 * math.log10(cell.spec.lr / BEST) ** 2, 6))


def do(study: Study, train: Any = by_rate, most: int = 10**6) -> int:
    """Settle cell by cell, as many as asked."""
    for count in range(most):
        left = [cell for cell in study.cells() if not study.settled(cell)]
        if not left:
            return count
        assert run_cell(study, left[0], train)
    return most


def tried(study: Study) -> dict[str, list[str]]:
    return {group.method: list(group.candidates) for group in study.groups}


def test_a_search_ends_near_the_best_rate_within_its_budget(tmp_path: Path) -> None:
    study = Study.create(tmp_path, from_dict(grid()))
    assert tried(study) == {"Original": ["lr=0.01"], "RIFLE": ["lr=0.01, periods=6"]}  # The middle of each range.
    whole = 2 * (TRIALS * SEEDS + 2)
    assert plan(study).runs == whole == len(study.cells()) + study.unknown_cells()
    assert do(study) == whole and study.unknown_cells() == 0 and plan(study).done == whole
    for group in study.groups:
        assert len(group.candidates) == group.budget == TRIALS
        chosen = study.chosen(group) or ""
        assert abs(math.log10(group.candidates[chosen]["lr"] / BEST)) < math.log10(2)
        assert (
            all(not cell.spec.test for cell in group.selection_cells)
            and [cell.candidate for cell in study.final_cells(group)] == [chosen] * 2
        )
    assert "lr=0.01, periods=6" in (write(study) / "report.md").read_text("utf-8")


def test_every_process_proposes_the_same(tmp_path: Path) -> None:
    """Whoever opens the folder, after any number of runs, sees the candidates that an undisturbed command saw."""
    whole = Study.create(tmp_path / "whole", from_dict(grid()))
    do(whole)
    Study.create(tmp_path / "cut", from_dict(grid()))
    for _ in range(200):
        if not do(Study.open(tmp_path / "cut"), most=3):
            break
    assert tried(Study.open(tmp_path / "cut")) == tried(whole) == tried(Study.open(tmp_path / "whole"))


def test_a_candidate_with_a_failed_run_is_out_and_the_search_goes_on(tmp_path: Path) -> None:
    def fails(cell: Any, runs: Path, listener: Any) -> Path:
        if cell.candidate == "lr=0.01" and cell.spec.seed == 1001:
            raise RuntimeError("no memory")
        return by_rate(cell, runs, listener)

    study = Study.create(tmp_path, from_dict(grid(methods={"Original": "l2"})))
    do(study, fails)
    [group] = study.groups
    assert len(group.candidates) == TRIALS and study.chosen(group) != "lr=0.01"
    assert study.reset_failed() == 1
    do(study)
    assert "lr=0.01" in tried(study)["Original"]


def test_a_search_of_few_values_ends_when_all_were_tried(tmp_path: Path) -> None:
    few = {"Original": {"method": "l2", "grid": {"epochs": {"low": 3, "high": 4}, "sampler": ["shuffle", "balanced"]}}}
    study = Study.create(tmp_path, from_dict(grid(methods=few, shared={}, selection={"seeds": 1, "trials": 9})))
    do(study, fakes.answer)
    [group] = study.groups
    assert 1 < len(group.candidates) == group.budget <= 4 and study.chosen(group) in group.candidates and study.unknown_cells() == 0


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e6), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_range_keeps_its_ends_and_few_digits(low: float, factor: float, log: bool) -> None:
    range_ = Range(low, low * factor, log)
    for value in (low, low * factor, range_.at(0.5), low * factor**0.3):
        near = range_.near(value)
        assert low <= near <= low * factor and near == pytest.approx(value, rel=0.006)


def test_a_proposal_depends_on_the_scores_and_on_nothing_else() -> None:
    search = Search({"lr": Range(1e-4, 1.0, True), "periods": Range(2, 9, False), "kind": ["a", "b"]}, 9, lambda values: ("", values))
    first, second, third = (search.start(number) for number in range(3))
    assert first == {"lr": 0.01, "periods": 6, "kind": "b"} and search.propose([(first, 0.5)]) == search.propose([(first, 0.1)]) == second
    assert len({each["lr"] for each in (first, second, third)}) == 3 and all(isinstance(each["periods"], int) for each in (second, third))
    history = [(first, 0.5), (second, None), ({"lr": 0.5, "periods": 3, "kind": "a"}, 0.7), ({"lr": 0.1, "periods": 3, "kind": "a"}, 0.8)]
    proposed = search.propose(history) or {}
    assert proposed == search.propose(history) and float(f"{proposed['lr']:.3g}") == proposed["lr"]
    assert search.propose([*history[:2], *((values, 1 - (accuracy or 0)) for values, accuracy in history[2:])]) != proposed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"selection": {"seeds": 2}}, "selection.trials must say among how many values, such as trials: 8"),
        ({"selection": {"trials": 1}}, "selection.trials must be at least 2, found 1"),
        ({"selection": {"trials": "many"}}, "selection.trials must be a list of whole numbers"),
        ({"shared": {"lr": {"low": 0.1}}}, "shared.lr.high must be a number, found None"),
        ({"shared": {"lr": {"low": 0.1, "high": 0.01}}}, "must go from low to a larger high, found 0.1 and 0.01"),
        ({"shared": {"lr": {"low": 0, "high": 0.01}}}, "low must be above 0 where equal factors count, found 0"),
        ({"shared": {"lr": {"low": 0.1, "high": 1, "step": 2}}}, "unknown key 'step'; allowed are low, high, log"),
        ({"shared": {"lr": {"low": 0.1, "high": 1, "log": "yes"}}}, "shared.lr.log must be true or false"),
        ({"shared": {"lr": 0.1}}, "must be a list of values, or a range {low: ..., high: ...}, found 0.1"),
        ({"shared": {"batch_size": {"low": -4, "high": 8, "log": False}}}, "batch_size must be "),
        ({"methods": {"Original": {"method": "l2", "grid": {"ema": [0.9]}}, "B": "l2"}, "shared": {}}, ""),
        ({"methods": {"Original": "l2", "B": {"method": "l2", "grid": {"lr": [0.1]}}}, "shared": {}}, ""),
        ({"methods": {"Original": "l2", "B": {"method": "l2", "grid": LR}}, "shared": {}}, f"Original has 1 candidate but B has {TRIALS}"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_one_sentence(changes: dict[str, Any], said: str) -> None:
    if not said:
        from_dict(grid(**changes))
        return
    with pytest.raises(UserError) as told:
        from_dict(grid(**changes))
    assert said in str(told.value) and "\n" not in str(told.value)
