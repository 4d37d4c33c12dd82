"""Importing ahead is a help that may fail: a program that ends in the midst of it says nothing of that."""

import subprocess
import sys

# The import of a module that wants to be told of the program's end, as pools of threads do, when the end has begun.
ENDING = """
import atexit, sys, threading
from rekindle.fitting.job import _import_ahead

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


def test_a_program_that_ends_meanwhile_says_nothing() -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
