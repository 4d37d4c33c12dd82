"""A `fit` that is killed at any moment, or at any single write, and started again gives the bits of an undisturbed one."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.chaos.commands import EPOCHS, fit, run_of
from tests.chaos.ledger import Tally, counted
from tests.chaos.writes import arm
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.warm import start
from tests.toys import picture_folder

pytestmark = pytest.mark.chaos
SEED = 14
METHODS = ["l2", "l2_sp+rifle(periods=2)", "delta", "bss", "lwf", "co_tuning", "stoch_norm", "disturb_label(gamma=0.1)"]
KILLS = 13  # Of each method.
AGAIN = 2  # Kills that one run is given.
TOLD = ("is damaged", "continuing after", "is finished already", "epochs of")  # What the command given again says, the most telling first.


class Whole(NamedTuple):
    """An undisturbed run: its folder, its processor time, and how often it changed something on the disk."""

    folder: Path
    seconds: float
    writes: int


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "data", {"train": 6, "val": 3, "test": 2}, size=24)


def armed(data: Path, out: Path, method: str, counter: Path, fatal: int | None) -> int:
    """In the process itself: train, and die at a write."""
    arm(out, counter, fatal)
    return fit(data, out, "--method", method)


def undisturbed(data: Path, root: Path, method: str) -> Whole:
    """Train once, and count."""
    process = start(armed, data, root / "whole", method, root / "writes", None, said=root / "said")
    seconds = 0.0
    watched = psutil.Process(process.pid)
    while process.is_alive():
        seconds = max(seconds, spent(watched))
        time.sleep(0.01)
    process.join()
    assert process.exitcode == 0, (root / "said").read_text("utf-8")
    return Whole(run_of(root / "whole"), seconds, (root / "writes").stat().st_size)


def spent(process: psutil.Process) -> float:
    """Processor time of a process so far; 0 where it has ended."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def finish(data: Path, out: Path, method: str, whole: Whole, kills: int, tally: Tally, what: str) -> None:
    """Give the same command again, and compare its run with the undisturbed one."""
    said = out.parent / f"{out.name}.txt"
    process = start(fit, data, out, "--method", method, said=said)
    process.join()
    text = said.read_text("utf-8")
    try:
        assert process.exitcode == 0, text[-500:]
        assert_equal_runs(run_of(out), whole.folder, EPOCHS)
        assert not list(run_of(out).rglob("*.tmp"))
    except (AssertionError, OSError, ValueError) as error:
        tally.lose(f"{method}, {what}: {error}", times=kills)
        return
    tally.add(next(line for told in TOLD for line in text.splitlines() if told in line), times=kills)
    shutil.rmtree(out)


@pytest.mark.parametrize("method", METHODS)
def test_at_any_moment(method: str, data: Path, tmp_path: Path, count: Callable[[int], int]) -> None:
    whole, stream = undisturbed(data, tmp_path, method), random.Random(f"{SEED} {method}")
    with counted("`fit` killed at a random moment, up to twice a run, and given again", SEED) as tally:
        while tally.times < count(KILLS):
            out, moments, kills = tmp_path / f"out{tally.times}", [stream.uniform(0, whole.seconds) for _ in range(AGAIN)], 0
            for moment in moments:
                process = start(fit, data, out, "--method", method, said=tmp_path / "killed.txt")
                watched = psutil.Process(process.pid)
                while process.is_alive() and spent(watched) < moment:
                    time.sleep(0.005)
                process.kill()
                process.join()
                kills += process.exitcode == -signal.SIGKILL
            if kills:
                finish(data, out, method, whole, kills, tally, f"killed after {moments} s")


@pytest.mark.parametrize("method", METHODS)
def test_at_single_writes(method: str, data: Path, tmp_path: Path, count: Callable[[int], int]) -> None:
    whole, stream = undisturbed(data, tmp_path, method), random.Random(f"{SEED} {method} writes")
    with counted("`fit` killed at a single write, rename or removal, and given again", SEED) as tally:
        for fatal in sorted(stream.sample(range(1, whole.writes + 1), count(KILLS))):
            out = tmp_path / f"out{fatal}"
            process = start(armed, data, out, method, tmp_path / "counter", fatal, said=tmp_path / "killed.txt")
            process.join()
            assert process.exitcode == -signal.SIGKILL, f"write {fatal} of {whole.writes} was not reached"
            finish(data, out, method, whole, 1, tally, f"killed at write {fatal} of {whole.writes}")
