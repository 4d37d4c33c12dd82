"""Whole runs on a GPU: as on the processor, resumed to where they would have come, several side by side, and never waited for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import rekindle
from rekindle.errors import Stopped
from rekindle.study.grid_file import from_dict
from rekindle.study.local_engine import run_local
from rekindle.study.store import Study
from rekindle.training.precision import automatic_precision
from rekindle.training.trainer import Training
from tests.training.test_trainer import RECIPES, settings

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::rekindle.RekindleWarning")]


# Masks are drawn where they are used, and each kind of device has a generator of its own.
@pytest.mark.parametrize(
    ("method", "direction"), [recipe for recipe in RECIPES if not any(word in recipe[0] for word in ("dropout", "stochastic"))]
)
def test_a_run_is_that_of_the_processor(method: str, direction: str, tmp_path: Path, device: str) -> None:
    options = settings(tmp_path) | {"method": method, "direction": direction}
    here, there = (rekindle.fit(**options, device=name, out=tmp_path / f"on-{name}-{place}") for place, name in enumerate(("cpu", device)))
    for one, other in zip(here.history, there.history, strict=True):
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=2e-2, abs=2e-3)
        assert one["restarted"] == other["restarted"] and one["lr"] == other["lr"]


@contextmanager
def _errors_on_waiting(device: str) -> Iterator[None]:
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


OPTIONS: list[dict[str, Any]] = [
    {"method": "l2"}, {"method": "l2_sp+rifle(periods=2)"}, {"method": "l2_sp_fisher"}, {"method": "attention_transfer(beta=10.0)"},
    {"method": "l2+sam"}, {"method": "l2+rifle(when='fitted')"}, {"method": "l2+auto_rgn"}, {"method": "l2+disturb_label(gamma=0.2)"},
    {"ema": 0.9}, {"class_weights": "balanced"}, {"record": "gradient_norms"}, {"freeze": "layer1", "views": 2},
]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_no_step_waits(option: dict[str, Any], tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Training._step

    def watched(self: Training, *args: Any) -> None:
        with _errors_on_waiting(device):
            step(self, *args)

    monkeypatch.setattr(Training, "_step", watched)
    rekindle.fit(**settings(tmp_path) | {"method": "l2", "epochs": 2, "clip_norm": 8.0} | option, device=device, out=tmp_path / "runs")


def test_a_stopped_run_ends_where_it_would_have(tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = settings(tmp_path)
    whole = rekindle.fit(**options, device=device, out=tmp_path / "whole")
    record = Training._record

    def stop_after_two(self: Training, epoch: int, *args: Any) -> None:
        record(self, epoch, *args)
        if epoch == 1:
            self._save(epoch + 1, 0)
            raise Stopped(str(self.folder.parent))

    monkeypatch.setattr(Training, "_record", stop_after_two)
    with pytest.raises(Stopped):
        rekindle.fit(**options, device=device, out=tmp_path / "cut")
    monkeypatch.undo()
    cut = rekindle.fit(**options, device=device, out=tmp_path / "cut")
    # Sums on a GPU are not always taken in the same order, so not to the bit.
    assert [line["train"]["loss"] for line in cut.history] == pytest.approx(
        [line["train"]["loss"] for line in whole.history], rel=1e-2, abs=1e-3
    )


def test_bfloat16_is_the_choice_where_the_gpu_has_it(device: str) -> None:
    if device == "cuda":
        assert automatic_precision() == ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32")


def test_runs_of_a_study_share_a_gpu(tmp_path: Path, device: str) -> None:
    options = settings(tmp_path)
    base = {name: options[name] for name in ("model", "weights", "batch_size", "lr")} | {"epochs": 1, "precision": "32"}
    grid = {
        "name": "side_by_side",
        "seeds": 2,
        "base": base,
        "tasks": {"toys": {"data": options["data"]}},
        "methods": {"A": "l2", "B": "l2_sp"},
    }
    study = Study.create(tmp_path / "study", from_dict(grid))
    run_local(study, jobs=2)
    assert {study.state(cell) for cell in study.cells()} == {"done"}
