"""Processes on one machine: killed at any moment, from two shells at once, with failing and dying cells."""

import copy
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from rekindle.study import local_engine
from rekindle.study.grid_file import from_dict
from rekindle.study.local_engine import finished, run_local
from rekindle.study.report.page import write
from rekindle.study.status import read_status
from rekindle.study.store import Study
from tests.study import fakes
from tests.study.shells import run_fakes


def make(folder: Path, **changes: object) -> Study:
    return Study.create(folder, from_dict({**copy.deepcopy(fakes.GRID), "seeds": 2, "sizes": [10], **changes}))


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no torch: neither to look for a GPU nor in the process that others would be forked from."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local_engine, "start_ahead", lambda threads: multiprocessing.get_context("spawn"))


def calls(study: Study) -> Counter[str]:
    return Counter((study.folder / "calls").read_text("utf-8").split())


def table(study: Study) -> list[str]:
    """The report's numbers, but for the names of run folders."""
    return (write(study) / "table.csv").read_text("utf-8").splitlines()


def test_killed_and_restarted_from_two_shells_equals_an_undisturbed_study(tmp_path: Path) -> None:
    study = make(tmp_path / "disturbed")
    spawn = multiprocessing.get_context("spawn")
    first = spawn.Process(target=run_fakes, args=(study.folder, 2))
    first.start()
    while read_status(study).counts["done"] < 3:
        assert first.is_alive()
        time.sleep(0.02)
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    begun = {key for key in calls(study)}
    shells = [spawn.Process(target=run_fakes, args=(study.folder, 1)) for _ in range(2)]
    for shell in shells:
        shell.start()
    for shell in shells:
        shell.join()
        assert shell.exitcode == 0
    assert finished(study) and read_status(study).counts["done"] == 24
    found = calls(study)
    # A run that was in hand at the kill is begun again; everything else is done once.
    assert len(found) == 24 and sum(found.values()) - 24 <= 2 and all(found[key] == 1 for key in found if key not in begun)
    calm = make(tmp_path / "calm")
    run_local(calm, jobs=2, train_cell=fakes.answer)
    assert set(calls(calm).values()) == {1} and table(calm) == table(study)


def test_a_failing_and_a_dying_cell_are_shown_and_the_rest_goes_on(tmp_path: Path) -> None:
    study = make(tmp_path / "study", regularizers={"L2": "l2"})
    told: list[str] = []
    run_local(study, jobs=2, notice=told.append, train_cell=fakes.half_broken)
    counts = read_status(study).counts
    assert counts["failed"] == 2 * 2 + 1 and counts["done"] == 12 - 5 and len(told) == 12
    died = next(error for cell, error in read_status(study).failed if cell.method == "RIFLE")
    assert "died 2 times" in died and "signal 9" in died
    folder = write(study)
    page, text = (folder / "report.html").read_text("utf-8"), (folder / "report.md").read_text("utf-8")
    assert "5 runs failed" in page and "1 of 2, 1 failed" in page and "1 of 2, 1 failed" in text and "failed (2 of 2)" in text
    rows = [line.split(",") for line in (folder / "table.csv").read_text("utf-8").splitlines()]
    dropout = next(row for row in rows if row[3] == "Dropout")
    assert dropout[5:9] == ["2", "0", "2", ""]


def test_stopping_by_a_signal_leaves_no_process_behind(tmp_path: Path) -> None:
    study = make(tmp_path / "study", seeds=20)
    shell = multiprocessing.get_context("spawn").Process(target=run_fakes, args=(study.folder, 2))
    shell.start()
    while not read_status(study).counts["done"]:
        time.sleep(0.02)
    os.kill(shell.pid or 0, signal.SIGTERM)
    shell.join(30)
    assert shell.exitcode not in (None, 0)
    workers = {study.record(cell.key)["pid"] for cell in study.cells() if study.record(cell.key)}
    assert workers and not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not read_status(study).counts["running"]


@pytest.mark.slow
def test_two_jobs_are_nearly_twice_as_fast(tmp_path: Path) -> None:
    if (os.cpu_count() or 1) < 2 or psutil.cpu_percent(interval=3) > 10:
        pytest.skip("needs two idle cores")
    seconds = {}
    for jobs in (1, 2):
        study = make(tmp_path / str(jobs), seeds=25, methods={"A": "l2"}, regularizers={"": ""}, tasks={"cats": "cats", "dogs": "dogs"})
        began = time.monotonic()
        run_local(study, jobs=jobs, train_cell=fakes.busy_second)
        seconds[jobs] = time.monotonic() - began
    print(json.dumps(seconds))
    assert seconds[1] / seconds[2] >= 1.8
