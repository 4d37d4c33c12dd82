"""A stopped run goes on from another working folder, after the data or the run were moved, and with a new path given."""

import signal
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.training.trainer import STOPPING
from tests.faults.stops import stopped_at
from tests.toys import picture_folder

OPTIONS: dict[str, Any] = {
    "model": "tiny", "weights": "none", "epochs": 2, "lr": 0.01, "image_size": 32, "batch_size": 4, "precision": "32", "workers": 0
}  # fmt: skip


def stopped(number: int = signal.SIGINT) -> Path:
    """Train on `photos` in the working folder until a signal after the first step."""
    picture_folder(Path("photos"), {"train": 4, "val": 2})
    with stopped_at(0, 0, number=number):
        rekindle.fit("photos", **OPTIONS)
    [run] = Path("runs").iterdir()
    return run


@pytest.mark.parametrize("number", STOPPING)
def test_every_request_to_stop_saves(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = stopped(number)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch00000-step0000001.safetensors"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert rekindle.fit(resume=Path("..") / run).result["status"] == "done"


def test_moved_data_are_asked_for_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = stopped()
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(rekindle.UserError, match="cannot be found; put it back, or name its new place: rekindle fit FOLDER --resume"):
        rekindle.fit(resume=run)
    with pytest.raises(rekindle.UserError, match="leave it out"):
        rekindle.fit("moved", resume=run, lr=0.1)
    assert rekindle.fit("moved", resume=run).result["data"] == str(tmp_path / "moved")
    assert rekindle.fit(resume=run).result["status"] == "done"


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = stopped()
    picture_folder(tmp_path / "others", {"train": 5, "val": 2})
    with pytest.raises(rekindle.UserError, match="changed since it began"):
        rekindle.fit("others", resume=run)


def test_a_renamed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    moved = stopped().rename(tmp_path / "my-run")
    assert rekindle.fit(resume=moved).folder == moved
