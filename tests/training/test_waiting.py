"""A GPU is given its steps without being waited for: in between, no number is read that it computes."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import rekindle
from rekindle.training.trainer import Training
from tests.training.test_trainer import settings

READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.masked_select.default)


class CountReads(TorchDispatchMode):
    """Counts what would make the host wait: numbers out of tensors, and shapes that hang on values."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in READS:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let runs go on as on a GPU, and list the reads inside their steps."""
    made, step, found = Training.__post_init__, Training._step, []

    def as_on_a_gpu(self: Training) -> None:
        made(self)
        self._waits = False

    def watched(self: Training, *args: Any) -> None:
        with CountReads() as reads:
            step(self, *args)
        found.extend(reads.found)

    monkeypatch.setattr(Training, "__post_init__", as_on_a_gpu)
    monkeypatch.setattr(Training, "_step", watched)
    return found


RECIPES = [
    ("l2", "plain_sum"), ("l2_sp+rifle(periods=2)", "plain_sum"), ("l2_sp_fisher", "plain_sum"), ("group_lasso_sp", "plain_sum"),
    ("dropout(p=0.3)+disturb_label(gamma=0.2)", "plain_sum"), ("attention_transfer(beta=10.0)", "plain_sum"), ("l2_sp", "dtnh"),
    ("l2+sam", "plain_sum"), ("l2+rifle(when='fitted')", "plain_sum"), ("l2+auto_rgn", "plain_sum"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "direction"), RECIPES)
def test_no_step_waits_for_the_device(method: str, direction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = settings(tmp_path) | {"method": method, "direction": direction, "epochs": 2, "clip_norm": 8.0}
    reads = without_waiting(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rekindle.RekindleWarning)  # Of so short a run.
        rekindle.fit(**options, out=tmp_path / "runs")
    assert reads == []


@pytest.mark.parametrize("option", [{"class_weights": "balanced"}, {"record": "gradient_norms,weight_distance"}, {"label_smoothing": 0.1}])
def test_no_option_makes_a_step_wait(option: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = without_waiting(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rekindle.RekindleWarning)
        rekindle.fit(**settings(tmp_path) | {"epochs": 2} | option, out=tmp_path / "runs")
    assert reads == []


def test_what_is_written_down_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = settings(tmp_path)
    waited = rekindle.fit(**options, out=tmp_path / "waited").history
    without_waiting(monkeypatch)
    assert untimed(rekindle.fit(**options, out=tmp_path / "not").history) == untimed(waited)


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "timing"} for line in history]


def test_a_loss_that_is_not_finite_is_noticed_in_the_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    with pytest.raises(rekindle.errors.UserError, match="epoch 1"):
        rekindle.fit(**settings(tmp_path) | {"lr": 1e30, "method": "l2"}, out=tmp_path / "runs")
