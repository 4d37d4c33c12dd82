"""No bad result ends in silence."""

from typing import Any

import pytest

from rekindle.report.cautions import cautions


def result(confusion: list[list[int]], probe: float | None = None, kept: int = 3) -> dict[str, Any]:
    count = sum(map(sum, confusion))
    accuracy = sum(row[place] for place, row in enumerate(confusion)) / count
    figures = {"confusion": confusion, "count": count, "accuracy": accuracy}
    baseline = None if probe is None else {"val": {"accuracy": probe}}
    return {"classes": ["a", "b", "c"], "val": figures, "probe": baseline, "kept_epoch": kept}


GOOD = [[9, 1, 0], [1, 8, 1], [0, 0, 10]]


@pytest.mark.parametrize("probe", [None, 0.5, 0.9])
def test_a_good_run_needs_none(probe: float | None) -> None:
    assert cautions(result(GOOD, probe)) == []


def test_below_its_probe() -> None:
    [said] = cautions(result(GOOD, 0.95))
    assert "90.0 %" in said and "95.0 %" in said and "--keep best" in said


def test_the_probe_was_kept() -> None:
    [said] = cautions(result(GOOD, 0.9, kept=-1))
    assert "probe" in said and "--epochs" in said


def test_near_chance() -> None:
    said = cautions(result([[4, 3, 3], [3, 4, 3], [3, 3, 4]]))
    assert len(said) == 1 and "40.0 %" in said[0] and "33.3 %" in said[0]


def test_always_right_on_few_pictures_is_not_near_chance() -> None:
    assert cautions(result([[1, 0, 0], [0, 1, 0], [0, 0, 0]])) == []


def test_a_class_that_is_never_named() -> None:
    [said] = cautions(result([[10, 0, 0], [0, 10, 0], [5, 5, 0]]))
    assert " c," in said and " a" not in said.split("for")[1].split(",")[0]
    assert cautions(result([[10, 0, 0], [0, 10, 0], [2, 2, 0]])) == [], "four pictures are too few to say so"


def test_without_a_split_to_measure() -> None:
    assert cautions({"classes": ["a"], "kept_epoch": 0}) == []
