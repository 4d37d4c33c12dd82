"""Studies on a real local Ray cluster, with a worker killed."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from rekindle.errors import UserError
from rekindle.study.grid_file import from_dict
from rekindle.study.status import read_status
from rekindle.study.store import Study
from tests.study import fakes

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'rekindle[study]'")
pytestmark = pytest.mark.slow


def make(folder: Path) -> Study:
    return Study.create(folder, from_dict({**copy.deepcopy(fakes.GRID), "seeds": 2, "sizes": [10], "regularizers": {"L2": "l2"}}))


def kill_one(study: Study, killed: list[int]) -> None:
    """Kill the first worker that is seen with a cell in hand after two are done."""
    while not killed:
        if read_status(study).counts["done"] >= 2:
            for cell, _ in read_status(study).running:
                killed.append(study.record(cell.key)["pid"])
                os.kill(killed[0], signal.SIGKILL)
                return
        time.sleep(0.01)


def test_a_killed_workers_cell_is_taken_up_again(tmp_path: Path) -> None:
    from rekindle.study.ray_engine import run_ray

    study = make(tmp_path / "study")
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(study, killed), daemon=True)
    killer.start()
    told: list[str] = []
    run_ray(study, jobs=2, notice=told.append, train_cell=fakes.slow)
    killer.join(5)
    assert killed and read_status(study).counts["done"] == 12 and len(told) == 12
    calls = Counter((study.folder / "calls").read_text("utf-8").split())
    assert len(calls) == 12 and sum(calls.values()) <= 13
    # A second driver finds nothing to do.
    run_ray(Study.open(study.folder), jobs=2, train_cell=fakes.half_broken)
    assert Counter((study.folder / "calls").read_text("utf-8").split()) == calls


def test_failures_and_deaths_are_failed_cells(tmp_path: Path) -> None:
    from rekindle.study.ray_engine import run_ray

    study = make(tmp_path / "study")
    run_ray(study, jobs=2, train_cell=fakes.half_broken)
    assert read_status(study).counts["failed"] == 5 and read_status(study).counts["done"] == 7
    died = next(error for cell, error in read_status(study).failed if cell.method == "RIFLE")
    assert "died 2 times" in died and "Ray" in died


def test_what_the_cluster_has_not_got_is_refused(tmp_path: Path) -> None:
    from rekindle.study.ray_engine import run_ray

    with pytest.raises(UserError, match="asks for 64 GPUs and the cluster has"):
        run_ray(make(tmp_path / "study"), jobs=1, gpus=64)
    with pytest.raises(UserError, match="no Ray cluster answers at 127.0.0.1:1"):
        run_ray(make(tmp_path / "study"), address="127.0.0.1:1")


# In a process of its own, since Ray looks at its environment when it is imported.
CLUSTER = """
import json, os, subprocess, sys
import psutil
from rekindle.study.ray_engine import _connect

ray = _connect("local", 1, 1.0)
pids = {process.pid for process in [psutil.Process(), *psutil.Process().children(recursive=True)]}
listening = [one.laddr.ip for one in psutil.net_connections("inet") if one.status == psutil.CONN_LISTEN and one.pid in pids]
join = f"import ray; ray.init(address={ray.get_runtime_context().gcs_address!r})"
stranger = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"} | {"RAY_AUTH_MODE": "disabled"}
answers = [subprocess.run([sys.executable, "-c", join], env=who, capture_output=True, text=True) for who in (stranger, dict(os.environ))]
ray.shutdown()
print(json.dumps([listening, [(one.returncode, "AuthenticationError" in one.stderr) for one in answers]]))
"""


def test_a_local_cluster_is_for_this_machine_and_user_alone() -> None:
    answer = subprocess.run([sys.executable, "-c", CLUSTER], capture_output=True, text=True, check=True, timeout=600)
    listening, [stranger, friend] = json.loads(answer.stdout.splitlines()[-1])
    assert listening and all(address.endswith("127.0.0.1") for address in listening)
    assert stranger == [1, True] and friend == [0, False]
