"""What a run imports and when, seen in one process that has imported nothing before."""

import subprocess
import sys

import pytest

# At last, the import of a module that wants to be told of the program's end, as pools of threads do, when the end has begun.
PROGRAM = """
import atexit, importlib.util, sys, threading
from rekindle.fitting.job import _import_ahead
from rekindle.fitting.setup import launch
from rekindle.spec import RunSpec

launch(RunSpec("x", precision="bf16"), "cpu")
print("torchmetrics" in sys.modules, importlib.util.find_spec("torchmetrics").loader is not None)

class Late:
    def find_spec(self, name, path=None, target=None):
        if name == "late":
            threading.main_thread().join()
            threading._register_atexit(print)

sys.meta_path.insert(0, Late())
_import_ahead("late")
[thread] = [one for one in threading.enumerate() if one.daemon]
atexit.register(thread.join)
"""


@pytest.fixture(scope="module")
def ended() -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)


def test_fabric_does_not_bring_torchmetrics_and_leaves_nothing_in_its_place(ended: "subprocess.CompletedProcess[str]") -> None:
    assert ended.stdout.split()[:2] == ["False", "True"]


def test_fabric_says_nothing_of_its_own(ended: "subprocess.CompletedProcess[str]") -> None:
    """What a run prints is its own; `rekindle` says which precision it took in spec.yaml."""
    assert len(ended.stdout.splitlines()) == 1 and ended.stderr == ""


def test_a_program_that_ends_meanwhile_says_nothing(ended: "subprocess.CompletedProcess[str]") -> None:
    """Importing ahead is a help that may fail: a program that ends in the midst of it says nothing of that."""
    assert (ended.returncode, ended.stderr) == (0, "")
