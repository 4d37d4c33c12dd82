"""Equal commands that start at once, each in a process of its own that has loaded everything before."""

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from rekindle.cli import main
from tests.faults.warm import check_loaded, warm


class Ended(NamedTuple):
    """How a command ended: its exit status, or 99 after an exception, and what it said on standard error."""

    status: int
    said: str


def race(commands: list[list[str]]) -> list[Ended]:
    """Start commands at a barrier and wait for all of them."""
    return race_of([partial(main, command) for command in commands])


def race_of(actions: Sequence[Callable[[], int]]) -> list[Ended]:
    """The same with functions that return an exit status."""
    context = warm()
    barrier, answers = context.Barrier(len(actions)), context.SimpleQueue()
    processes = [context.Process(target=_run, args=(dict(os.environ), action, barrier, answers)) for action in actions]
    for process in processes:
        process.start()
    ended = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return ended


def _run(environment: dict[str, str], action: Callable[[], int], barrier: Any, answers: Any) -> None:
    os.environ.update(environment)
    said = io.StringIO()
    status = 99
    try:
        check_loaded()
        barrier.wait(120)
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = action()
    except BaseException as error:  # noqa: BLE001  The test wants to see it.
        said.write(f"{type(error).__name__}: {error}")
    answers.put(Ended(status, said.getvalue()))
