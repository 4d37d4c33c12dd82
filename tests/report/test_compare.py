"""Runs side by side: closed forms of the statistics, and no verdict that a corrected p does not carry."""

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rekindle.errors import UserError
from rekindle.report.compare import Comparison, _Group, _pairs, _reading, compare

from .conftest import MakeRun

RIGHT, WRONG = (0, 0), (0, 1)


def run_of(make_run: MakeRun, name: str, right: int, total: int = 10, **spec: Any) -> Path:
    """A run with so many right answers."""
    return make_run(name, [RIGHT] * right + [WRONG] * (total - right), report=False, **spec)


def test_two_runs_are_compared_picture_by_picture(make_run: MakeRun) -> None:
    a = make_run("a", [RIGHT] * 2 + [WRONG] * 5 + [RIGHT] + [WRONG] * 2, report=False)
    b = make_run("b", [RIGHT] * 2 + [RIGHT] * 5 + [WRONG] + [WRONG] * 2, report=False, method="l2+rifle(periods=2)")
    found = compare([a, b])
    assert found.notes == []
    assert found.pictures == {
        "count": 10,
        "both_right": 2,
        "only_first_right": 1,
        "only_second_right": 5,
        "both_wrong": 2,
        "difference": pytest.approx(0.4),
        "p": pytest.approx(14 / 64),
    }


def test_equal_answers_give_p_of_one(make_run: MakeRun) -> None:
    pictures = compare([run_of(make_run, "a", 5), run_of(make_run, "b", 5, seed=1)]).pictures
    assert pictures["p"] == 1.0 and pictures["difference"] == 0.0


def test_runs_on_partly_different_pictures_are_compared_on_those_they_share(make_run: MakeRun) -> None:
    a, b = run_of(make_run, "a", 10), run_of(make_run, "b", 5, seed=1, first=4)
    found = compare([a, b])
    assert found.pictures["count"] == 6 and found.pictures["only_first_right"] == 1
    assert any("the 6 they share" in note for note in found.notes)


def test_runs_without_a_common_picture_cannot_be_paired(make_run: MakeRun) -> None:
    found = compare([run_of(make_run, "a", 3, total=3), run_of(make_run, "b", 3, total=3, first=5)])
    assert found.pictures is None and any("they share none" in note for note in found.notes)


def test_seeds_are_grouped_and_paired(make_run: MakeRun) -> None:
    plain = [run_of(make_run, f"l2-{seed}", right, seed=seed) for seed, right in enumerate((5, 6, 7))]
    rifle = [run_of(make_run, f"rifle-{seed}", right, seed=seed, method="l2+rifle(periods=2)") for seed, right in enumerate((7, 7, 9))]
    found = compare([*rifle[::-1], *plain])
    assert found.pictures is None
    assert [(row["method"], row["seeds"]) for row in found.methods] == [("l2+rifle(periods=2)", 3), ("l2", 3)]
    assert found.methods[1]["mean"] == pytest.approx(0.6) and found.methods[1]["std"] == pytest.approx(0.1)
    (pair,) = found.pairs
    assert (pair["from"], pair["to"], pair["n"]) == ("l2+rifle(periods=2)", "l2", 3)
    assert pair["difference"] == pytest.approx(-(0.2 + 0.1 + 0.2) / 3)
    assert pair["low"] < pair["difference"] < pair["high"] and pair["p"] == pair["p_holm"]


def test_runs_that_differ_in_more_than_the_method_are_not_thrown_together(make_run: MakeRun) -> None:
    found = compare([run_of(make_run, "a", 5, model="resnet18"), run_of(make_run, "b", 9, model="resnet50")])
    assert [row["method"] for row in found.methods] == ["l2, model=resnet18", "l2, model=resnet50"]


def test_no_difference_is_given_across_data(make_run: MakeRun) -> None:
    found = compare([run_of(make_run, "a", 5), run_of(make_run, "b", 9, data="other")])
    assert found.pairs == [] and any("different data" in note for note in found.notes)


def test_methods_without_a_common_seed_are_not_paired(make_run: MakeRun) -> None:
    found = compare([run_of(make_run, "a", 5), run_of(make_run, "b", 9, seed=1, method="l2_sp")])
    assert found.pairs == [] and any("no seed in common" in note for note in found.notes)


@pytest.mark.parametrize(
    ("difference", "p", "p_holm", "word"),
    [
        (0.01, 0.2, 0.2, "no clear difference"),
        (0.01, 0.01, 0.05, "no clear difference"),
        (0.01, 0.01, 0.04, "higher"),
        (-0.01, 0.01, 0.04, "lower"),
    ],
)
def test_a_word_is_said_only_where_the_corrected_p_carries_it(difference: float, p: float, p_holm: float, word: str) -> None:
    assert _reading({"difference": difference, "p": p, "p_holm": p_holm, "n": 3}) == word


def test_rows_hold_what_a_table_needs(make_run: MakeRun) -> None:
    row = compare([run_of(make_run, "a", 5), run_of(make_run, "b", 6, seed=1, test=False)]).to_dict()["runs"][1]
    assert (row["seed"], row["epochs"], row["val"], row["test"], row["split"], row["seconds"], row["count"]) == (
        1,
        4,
        0.6,
        None,
        "val",
        6.0,
        10,
    )


def test_every_form_holds_the_same_numbers(make_run: MakeRun) -> None:
    runs = [
        run_of(make_run, f"{method}{seed}", right, seed=seed, method=method)
        for method, seed, right in (("l2", 0, 5), ("l2", 1, 6), ("l2_sp", 0, 7), ("l2_sp", 1, 9))
    ]
    found = compare(runs)
    json.dumps(found.to_dict(), allow_nan=False)
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(found.to_rich())
    for text in (found.to_markdown(), console.export_text()):
        assert "+25.00" in text and "55.00" in text and "no clear difference" in text


def test_equal_methods_are_seldom_told_apart() -> None:
    """Five methods that do not differ, five seeds: a comparison that calls any two different errs, and one in twenty may.

    Of 150 fair coins of one in twenty, 12 and fewer come up in 96 of 100 tries; without the correction a third errs.
    """
    draw, wrong = random.Random(0), 0
    for _ in range(150):
        luck = [draw.gauss(0.0, 0.01) for _ in range(5)]
        values = [[0.8 + luck[seed] + draw.gauss(0.0, 0.01) for seed in range(5)] for _ in range(5)]
        groups = [
            _Group(str(number), {"data": "d", "split": "test"}, [{"seed": seed, "accuracy": value} for seed, value in enumerate(row)])
            for number, row in enumerate(values)
        ]
        wrong += any(_reading(pair) in ("higher", "lower") for pair in _pairs(groups, []))
    assert wrong <= 12


def test_markdown_keeps_its_columns_whatever_the_names() -> None:
    row = {
        "run": "a|b\nc",
        "id": "1",
        "method": "*m*",
        "model": "<b>",
        "data": "`d`",
        "seed": 0,
        "epochs": 1,
        "lr": 0.1,
        "val": 0.5,
        "test": None,
        "split": "val",
        "accuracy": 0.5,
        "probe": None,
        "count": 4,
        "interval": (0.1, 0.9),
        "seconds": 3.0,
    }
    lines = Comparison([row], [], [], None, []).to_markdown().strip().splitlines()
    header, line = lines[2], lines[4]
    assert len(lines) == 5 and header.count("|") == line.replace("\\|", "").count("|") and "\\*m\\*" in line and "\\<b>" in line


def test_what_cannot_be_compared_is_refused_in_a_sentence(make_run: MakeRun, tmp_path: Path) -> None:
    a = run_of(make_run, "a", 5)
    unfinished = run_of(make_run, "b", 5, seed=1)
    (unfinished / "result.json").unlink()
    with pytest.raises(UserError, match=r"has not finished.*fit --resume"):
        compare([a, unfinished])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run folder"):
        compare([a, tmp_path / "empty"])
    with pytest.raises(UserError, match="no run folder"):
        compare([a, tmp_path / "nowhere"])
    for few in ([], [a], [a, a]):
        with pytest.raises(UserError, match="two or more different run folders"):
            compare(few)
