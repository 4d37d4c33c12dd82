"""The one sentence of advice: each rule where it holds, and the first that does."""

from typing import Any

import pytest

from rekindle.report.advice import advice
from rekindle.report.cautions import cautions

CLASSES = ["cat", "dog", "emu"]
CLEAN = [[20, 0, 0], [0, 20, 0], [0, 0, 20]]
SCATTERED = [[19, 1, 0], [0, 19, 1], [1, 0, 19]]
CONFUSED = [[20, 0, 0], [0, 16, 4], [1, 0, 19]]
UNFOUND = [[20, 0, 0], [10, 0, 10], [0, 0, 20]]
SETTLED, FALLING = (1.0, 0.5, 0.4, 0.41, 0.4, 0.4), (1.0, 0.8, 0.7, 0.6, 0.5, 0.4)


def result(confusion: list[list[int]], kept: int = 5, probe: float | None = None, error: float = 0.02) -> dict[str, Any]:
    """What result.json holds, of one test split."""
    count, right = sum(map(sum, confusion)), sum(row[i] for i, row in enumerate(confusion))
    rows = [
        {"name": name, "support": sum(row), "recall": row[i] / sum(row)}
        for i, (name, row) in enumerate(zip(CLASSES, confusion, strict=True))
    ]
    test = {"accuracy": right / count, "count": count, "confusion": confusion, "per_class": rows, "calibration_error": error}
    return {"test": test, "classes": CLASSES, "kept_epoch": kept, "epochs": 6, "probe": probe and {"test": {"accuracy": probe}}}


def losses(values: tuple[float, ...]) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl."""
    return [{"val": {"loss": value}} for value in values]


@pytest.mark.parametrize(
    ("found", "history", "words"),
    [
        (result(UNFOUND, kept=-1), FALLING, ("did not beat the linear probe", "--epochs 12")),
        (result(UNFOUND, probe=0.9), FALLING, ("did not beat the linear probe",)),
        (result(UNFOUND, probe=0.1), FALLING, ("None of 20 pictures of dog",)),
        (result(CONFUSED), FALLING, ("still falling", "--epochs 12")),
        (result(CONFUSED), SETTLED, ("dog taken for emu (4 of 20)",)),
        (result(SCATTERED, error=0.3), SETTLED, ("off by 30 %",)),
        (result(SCATTERED), SETTLED, ("No single fault",)),
        (result(CLEAN), SETTLED, ("Every test picture is right", "rekindle evaluate")),
        (result(CLEAN), (), ("Every test picture is right",)),
    ],
)  # fmt: skip
def test_the_first_rule_that_holds_speaks(found: dict[str, Any], history: tuple[float, ...], words: tuple[str, ...]) -> None:
    text = advice(found, losses(history))
    assert all(word in text for word in words) and text.count(". ") == 0 and text.endswith(".")


def test_epochs_that_were_not_validated_say_nothing_of_the_length() -> None:
    assert "still falling" not in advice(result(CONFUSED), [{"train": {"loss": 1.0}}] * 6)


def test_a_run_that_minutes_shortened_is_told_to_take_more_of_them() -> None:
    assert "--minutes 6," in advice(result(UNFOUND, kept=-1), losses(FALLING), 3.0)
    assert advice(result(CONFUSED), losses(FALLING), 2.5).endswith("with --minutes 5.")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (result(CONFUSED, kept=-1), "dog taken for emu"),
        (result(CONFUSED, probe=1.0), "dog taken for emu"),
        (result(SCATTERED, kept=-1), ""),
        (result([[20, 0, 0], [20, 0, 0], [20, 0, 0]]), ""),
        (result([[20, 0, 0], [20, 0, 0], [0, 0, 20]]), "still falling"),
    ],
)
def test_advice_does_not_repeat_a_caution(found: dict[str, Any], words: str) -> None:
    told = cautions(found)
    assert told
    text = advice(found | {"cautions": told}, losses(FALLING))
    assert words in text and bool(words or text) == bool(words)
    assert advice(found | {"cautions": ["the data have groups that stand in two splits."]}, losses(FALLING)) == advice(
        found, losses(FALLING)
    )
