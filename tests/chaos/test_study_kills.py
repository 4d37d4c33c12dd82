"""A study whose command, worker or all processes are killed at any moment, and that is started again, equals an undisturbed one."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rekindle.study.report.page import write
from rekindle.study.status import read_status
from rekindle.study.store import Study
from rekindle.study.worker import run_cell
from tests.chaos.commands import run_study
from tests.chaos.ledger import counted
from tests.faults.warm import start
from tests.study import fakes
from tests.study.test_local_engine import calls, make, table

pytestmark = pytest.mark.chaos
SEED, STUDIES, JOBS, LONGEST = 15, 16, 2, 1.0
VICTIMS = ("command", "worker", "all")  # In turn, for each study.


def study_run(folder: Path) -> int:
    """In a process of its own: go on with a study whose runs train nothing."""
    return run_study(Study.open(folder), JOBS, fakes.slow)


def hands(study: Study) -> set[int]:
    """Processes that have a cell in hand."""
    return {study.record(cell.key)["pid"] for cell, _ in read_status(study).running}


def strike(study: Study, command: Any, victim: str, moment: float) -> int:
    """Kill, a while after the first cell is in hand, and wait until nobody has a cell. Returns how many died of it."""
    for pause in (moment, 0.0):
        while command.is_alive() and not hands(study):
            time.sleep(0.01)
        time.sleep(pause)
    workers = sorted(hands(study))
    pids = {"command": [command.pid], "worker": workers[:1], "all": [command.pid, *workers]}[victim]
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    if victim == "worker":
        return killed
    command.join()
    return killed if command.exitcode == -signal.SIGKILL else 0


def test_at_any_moment(tmp_path: Path, count: Callable[[int], int]) -> None:
    calm, stream = make(tmp_path / "calm", seeds=6), random.Random(SEED)
    for cell in calm.cells():
        run_cell(calm, cell, fakes.answer)
    expected = table(calm)
    with counted("`study run` killed: its command, a worker, or all, and given again", SEED) as tally:
        for number in range(count(STUDIES)):
            study, kills, most = make(tmp_path / f"study{number}", seeds=6), 0, 0
            for victim in VICTIMS:
                command = start(study_run, study.folder, said=tmp_path / "said.txt")
                died = strike(study, command, victim, stream.uniform(0, LONGEST))
                kills, most = kills + bool(died), most + JOBS * bool(died)
                if victim == "worker":
                    command.join()
            command = start(study_run, study.folder, said=tmp_path / "said.txt")
            command.join()
            found: Counter[str] = calls(study)
            again = sum(found.values()) - len(found)
            counts = read_status(study).counts
            if command.exitcode or counts["done"] != len(calm.cells()) or table(study) != expected or again > most:
                tally.lose(f"study {number}: {counts}, {again} runs done again after {kills} kills", times=kills)
            else:
                tally.add(
                    f"{counts['done']} of {counts['done']} runs done, at most one begun again for each process that died", times=kills
                )
            write(study)
