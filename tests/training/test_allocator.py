"""What is freed stays with the process."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
from rekindle.training.allocator import keep_freed_memory
{call}
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


def faults(call: str) -> int:
    """Pages that the system clears for a block that is asked for a second time."""
    done = subprocess.run([sys.executable, "-c", FAULTS.format(call=call)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a malloc of another kind")
def test_a_block_is_used_again() -> None:
    assert faults("keep_freed_memory()") < 100 < faults("")
