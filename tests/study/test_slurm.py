"""Studies by submitit's jobs on this machine, where there is no Slurm; and what is said where it is not."""

import copy
import os
import shutil
import signal
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rekindle.cli import main
from rekindle.errors import UserError
from rekindle.study import slurm_engine
from rekindle.study.grid_file import from_dict
from rekindle.study.slurm_engine import run_slurm
from rekindle.study.status import read_status
from rekindle.study.store import Study
from tests.study import fakes

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'rekindle[study]'")


def make(folder: Path) -> Study:
    return Study.create(folder, from_dict({**copy.deepcopy(fakes.GRID), "seeds": 1, "sizes": [10], "regularizers": {"L2": "l2"}}))


def settings(study: Study, **given: str) -> dict[str, Any]:
    """What sbatch would be told."""
    executor: Any = slurm_engine._executor(study, given, "slurm")._executor
    return dict(executor.parameters)


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of Slurm that do nothing, so that settings can be looked at."""
    for name in ("sbatch", "srun", "scancel", "squeue"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_two_jobs_do_every_cell_once(tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    told: list[str] = []
    run_slurm(study, jobs=2, notice=told.append, train_cell=fakes.answer, cluster="local")
    assert read_status(study).counts["done"] == len(study.cells()) == 6 and len(told) == 7
    assert set(Counter((study.folder / "calls").read_text("utf-8").split()).values()) == {1}


def test_jobs_that_end_before_the_study_are_told(tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    with pytest.raises(UserError, match=r"ended with 6 runs to do.*again"):
        run_slurm(study, jobs=1, train_cell=fakes.interrupted, cluster="local")


@pytest.fixture
def ending() -> Iterator[slurm_engine.Ending]:
    """As a job makes it; handlers are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield slurm_engine.Ending()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_warning_asks_a_run_that_trains_and_is_not_forgotten_after_it(ending: slurm_engine.Ending) -> None:
    asked: list[int] = []
    outside = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))  # As a run does while it trains.
    os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(0.01)
    assert asked == [signal.SIGTERM] and not ending(), "the run itself saves its state and stops"
    signal.signal(signal.SIGTERM, outside)
    assert ending()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_warning_outside_training_counts(name: str, ending: slurm_engine.Ending) -> None:
    assert not ending()
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(0.01)
    assert ending()


@pytest.mark.parametrize(("does", "state"), [(fakes.warned_while_reading, "stopped"), (fakes.warned_at_the_end, "done")])
def test_a_job_that_is_warned_outside_training_begins_no_other_cell(does: Any, state: str, tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    with pytest.raises(UserError, match="to do"):
        run_slurm(study, jobs=1, train_cell=does, cluster="local")
    [key] = (study.folder / "calls").read_text("utf-8").split()
    assert study.record(key)["state"] == state and "crashes" not in study.record(key)


@pytest.mark.parametrize(
    ("word", "state", "crashes"), [("TIMEOUT", "stopped", 0), ("CANCELLED by 7", "stopped", 0), ("FAILED", "failed", 2)]
)
def test_a_job_whose_time_was_over_is_no_crash(word: str, state: str, crashes: int, tmp_path: Path) -> None:
    study = make(tmp_path / "study")
    cell = study.cells()[0]
    job = SimpleNamespace(job_id="7", state=word, exception=lambda: RuntimeError(""))
    for _ in range(2):
        study.begin(cell)
        slurm_engine._record_death(study, job)
    assert (study.record(cell.key)["state"], study.record(cell.key).get("crashes", 0)) == (state, crashes)


def test_settings_reach_sbatch(tmp_path: Path, pretended: None) -> None:
    found = settings(make(tmp_path / "study"), partition="gpu", time="120", **{"gpus-per-node": "1"})
    assert found == {"job_name": "rekindle-fake", "cpus_per_task": 1, "partition": "gpu", "time": 120, "gpus_per_node": 1}


def test_a_setting_that_sbatch_does_not_know(tmp_path: Path, pretended: None) -> None:
    with pytest.raises(UserError, match="--slurm: .*colour"):
        settings(make(tmp_path / "study"), colour="red")


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="needs a machine without Slurm")
def test_a_machine_without_slurm(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sbatch"):
        run_slurm(make(tmp_path / "study"))


@pytest.mark.parametrize(
    "words", [["--slurm", "time=3"], ["--engine", "slurm", "--slurm", "time"], ["--engine", "slurm", "--address", "auto"]]
)
def test_options_that_do_not_fit(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    grid = {**copy.deepcopy(fakes.GRID), "tasks": {"cats": {"data": str(tmp_path / "cats")}}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    assert main(["study", "run", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "study"), *words]) == 2
    assert words[-2] in capsys.readouterr().err
