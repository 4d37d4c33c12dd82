"""The command as a process of its own: ``rekindle`` and ``python -m rekindle``."""

import gc
import sys

from rekindle.cli import main

RARELY = 1000
"""How many collections of the middle generation there are to one of everything; Python has 10."""


def run() -> int:
    """The command, with fewer searches for garbage among the half a million objects of torch and its like.

    Python looks through all of them again and again while they are imported, which finds nothing, and three times as it ends, when the
    system frees all memory anyway: together over a tenth of a short run.

    Returns:
        The exit status of `main`.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, RARELY)
    try:
        return main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    sys.exit(run())
