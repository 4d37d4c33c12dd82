"""A state is saved as often as that takes a twentieth of the time, after the first and the last epoch, and wherever a run stops."""

import time
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.training import trainer
from tests.toys import TINY_RUN, picture_folder

EPOCHS = 12


def saved(monkeypatch: pytest.MonkeyPatch, seconds: float) -> list[int]:
    """Grows by the epoch of each state that is saved, which takes so long."""
    epochs: list[int] = []
    save = trainer.save_state

    def slow(folder: Path, epoch: int, step: int, state: dict[str, Any]) -> Path:
        epochs.append(epoch)
        time.sleep(seconds)
        return save(folder, epoch, step, state)

    monkeypatch.setattr(trainer, "save_state", slow)
    monkeypatch.setattr(trainer, "SPARSELY", 20 if seconds else 0)
    return epochs


def test_saving_that_takes_long_is_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    epochs = saved(monkeypatch, 1.0)
    rekindle.fit(tmp_path / "data", out=tmp_path / "runs", **TINY_RUN | {"epochs": EPOCHS})
    assert epochs == [1, EPOCHS], "twelve epochs take less than twenty seconds"


def test_saving_that_takes_no_time_is_done_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    epochs = saved(monkeypatch, 0.0)
    rekindle.fit(tmp_path / "data", out=tmp_path / "runs", **TINY_RUN | {"epochs": EPOCHS})
    assert epochs == list(range(1, EPOCHS + 1))


def test_a_run_that_stalls_is_saved_where_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    epochs = saved(monkeypatch, 1.0)
    run = rekindle.fit(tmp_path / "data", out=tmp_path / "runs", **TINY_RUN | {"epochs": 40, "lr": 1e-9, "patience": 3})
    assert epochs == [1, len(run.history)] and len(run.history) < 40
