"""Equal commands that start at once, each in a process of its own that has loaded everything before."""

import contextlib
import io
import multiprocessing
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """How a command ended: its exit status, or 99 after an exception, and what it said on standard error."""

    status: int
    said: str


def race(commands: list[list[str]]) -> list[Ended]:
    """Start commands at a barrier and wait for all of them."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(len(commands)), context.SimpleQueue()
    processes = [context.Process(target=_run, args=(command, barrier, answers)) for command in commands]
    for process in processes:
        process.start()
    ended = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    return ended


def _run(command: list[str], barrier: Any, answers: Any) -> None:
    said = io.StringIO()
    status = 99
    try:
        import torch

        import rekindle.fitting.fit
        import rekindle.report.run_page
        import rekindle.training.trainer  # noqa: F401
        from rekindle.cli import main

        torch.set_num_threads(1)
        barrier.wait(120)
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main(command)
    except BaseException as error:  # noqa: BLE001  The test wants to see it.
        said.write(f"{type(error).__name__}: {error}")
    answers.put(Ended(status, said.getvalue()))
