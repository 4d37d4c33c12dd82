"""A run killed at any moment and resumed gives the bits of an undisturbed one, apart from what stands under `timing`."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import rekindle
from rekindle import models
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.kill_at import fit_until
from tests.faults.stops import stopped_at
from tests.faults.warm import start
from tests.toys import Notes, picture_folder

EPOCHS = 6
POINTS = ["before_first_checkpoint", "mid_epoch", "while_saving", "before_draw", "after_draw"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("kill")
    picture_folder(root / "data", {"train": 10, "val": 3, "test": 3})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(models.build("cifar_resnet8", weights="none").module.state_dict(), root / "weights.safetensors")
    return {
        "data": str(root / "data"), "model": "cifar_resnet8", "weights": str(root / "weights.safetensors"), "method": "l2_sp+rifle(periods=2)",
        "epochs": EPOCHS, "lr": 0.02, "batch_size": 8, "precision": "32", "seed": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield rekindle.fit(**options, out=tmp_path_factory.mktemp("whole"), keep_checkpoints=True).folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def killed(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders named as the points, in each a run that was killed there."""
    out = tmp_path_factory.mktemp("killed")
    processes = {point: start(fit_until, point, {**options, "out": out / point}, said=out / "said") for point in POINTS}
    for point, process in processes.items():
        process.join(300)
        assert process.exitcode == -signal.SIGKILL, (point, (out / "said").read_text("utf-8"))
    return out


@pytest.mark.parametrize("point", POINTS)
def test_kill_9(point: str, killed: Path, undisturbed: Path) -> None:
    [folder] = (killed / point).iterdir()
    assert not (folder / "result.json").exists()
    notes: list[str] = []
    assert_equal_runs(rekindle.fit(resume=folder, listener=Notes(notes)).folder, undisturbed, EPOCHS)
    assert any(note.startswith("rifle: the head has") for note in notes)


def test_ctrl_c_saves_in_mid_epoch_and_the_run_goes_on(options: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    with stopped_at(3, 0) as stop:
        rekindle.fit(**options, out=tmp_path)
    folder = stop.folder
    assert max(path.name for path in (folder / "checkpoints").iterdir()) == "epoch00003-step0000001.safetensors"
    assert_equal_runs(rekindle.fit(resume=folder).folder, undisturbed, EPOCHS)


def test_a_damaged_newest_checkpoint_is_named_and_an_older_one_used(options: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / undisturbed.name
    shutil.copytree(undisturbed, folder)
    (folder / "result.json").unlink()
    older, newest = sorted((folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    notes: list[str] = []
    run = rekindle.fit(resume=folder, listener=Notes(notes), keep_checkpoints=True)
    assert_equal_runs(run.folder, undisturbed, EPOCHS)
    assert any(newest.name in note and "damaged" in note for note in notes)
    assert older.exists()


def test_a_finished_run_is_not_trained_again(options: dict[str, Any], undisturbed: Path) -> None:
    before = (undisturbed / "result.json").stat().st_mtime_ns
    notes: list[str] = []
    rekindle.fit(**options, out=undisturbed.parent, listener=Notes(notes))
    assert (undisturbed / "result.json").stat().st_mtime_ns == before
    assert any("finished already" in note for note in notes)


def test_changed_data_is_not_resumed(options: dict[str, Any], undisturbed: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(options["data"], data)
    run = rekindle.fit(**{**options, "data": str(data), "epochs": 1, "method": "l2"}, out=tmp_path / "runs").folder
    (run / "result.json").unlink()
    next((data / "train" / "class0").iterdir()).unlink()
    with pytest.raises(rekindle.UserError, match="changed since it began"):
        rekindle.fit(resume=run)
