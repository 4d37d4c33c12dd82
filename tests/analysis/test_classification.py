"""The figures of a split against numbers worked out by hand."""

import json
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from rekindle.analysis import summarize
from rekindle.analysis.classification import calibration_error
from rekindle.errors import UserError

PROBABILITIES = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
LABELS = torch.tensor([0, 1, 1, 2])


def test_every_figure_by_hand() -> None:
    """Predictions 0, 0, 1, 0 for the labels 0, 1, 1, 2."""
    found = summarize(PROBABILITIES[:3], LABELS[:3], ["a", "b", "c"])
    assert found["count"] == 3 and found["accuracy"] == pytest.approx(2 / 3)
    assert found["loss"] == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3)
    found = summarize(PROBABILITIES, LABELS, ["a", "b", "c"])
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [1, 0, 0]]
    a, b, c = found["per_class"]
    assert a == {"name": "a", "precision": pytest.approx(1 / 3), "recall": 1.0, "f1": pytest.approx(0.5), "support": 1}
    assert b == {"name": "b", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert c == {"name": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}, "a class never predicted has precision 0"
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3) / 3)
    # Each confidence has a bin of its own, so the error is the mean of |right - confidence|.
    assert found["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.7) / 4, abs=1e-6)


def test_answers_of_one_bin_are_averaged_before_they_are_judged() -> None:
    """Ten answers said with 0.8, eight of them right: perfectly calibrated."""
    probabilities = torch.tensor([[0.8, 0.2]]).repeat(10, 1)
    labels = torch.tensor([0] * 8 + [1] * 2)
    assert summarize(probabilities, labels, ["a", "b"])["calibration_error"] == pytest.approx(0, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 200), st.floats(0.1, 10), st.integers(0, 1000))
def test_the_calibration_error_is_that_of_torchmetrics(classes: int, count: int, sharpness: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(count, classes, generator=draw)).softmax(1).clamp(0, 1)
    labels = torch.randint(classes, (count,), generator=draw)
    wanted = multiclass_calibration_error(probabilities, labels, classes, n_bins=15)
    assert calibration_error(probabilities, labels) == pytest.approx(float(wanted), abs=1e-5)


def test_a_wrong_answer_of_full_confidence_costs_much_and_stays_finite() -> None:
    assert 20 < summarize(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), ["a", "b"])["loss"] < 100


def test_rounding_above_one_is_not_taken_for_logits() -> None:
    sure = torch.tensor([[1.0 + 1e-6, 0.0], [0.0, 1.0]])
    assert summarize(sure, torch.tensor([0, 1]), ["a", "b"])["calibration_error"] == pytest.approx(0, abs=1e-5)


def test_a_class_without_pictures_stays_in_the_table() -> None:
    found = summarize(torch.tensor([[0.7, 0.3]]), torch.tensor([0]), ["a", "b"])
    assert found["per_class"][1] == {"name": "b", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UserError, match="no pictures"):
        summarize(torch.empty(0, 2), torch.empty(0, dtype=torch.long), ["a", "b"])


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 1000))
def test_the_figures_agree_with_each_other(classes: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.randn(count, classes, generator=generator).softmax(1)
    labels = torch.randint(classes, (count,), generator=generator)
    found = summarize(probabilities, labels, [str(i) for i in range(classes)])
    confusion = torch.tensor(found["confusion"])
    assert confusion.sum() == found["count"] == sum(row["support"] for row in found["per_class"])
    assert float(confusion.trace()) / count == pytest.approx(found["accuracy"])
    assert 0 <= found["calibration_error"] <= 1 and found["loss"] > 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_importing_the_room_is_quick() -> None:
    heavy = "{'torchmetrics', 'sklearn', 'matplotlib', 'lightning', 'timm'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, rekindle.analysis; print({heavy} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
