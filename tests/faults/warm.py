"""Processes that are forked from one that has loaded everything before, since loading it anew costs more than what they do."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

PRELOAD = "tests.faults.preload"
ROOT = Path(__file__).resolve().parents[2]


def warm() -> ForkServerContext:
    """What makes such processes; what they are forked from is started in the project's folder, since elsewhere it would find nothing to load."""
    context, here = multiprocessing.get_context("forkserver"), Path.cwd()
    context.set_forkserver_preload([PRELOAD])
    os.chdir(ROOT)
    forkserver.ensure_running()
    os.chdir(here)
    return context


def start(action: Callable[..., Any], *arguments: Any, said: Path | None = None) -> ForkServerProcess:
    """Run a function in a process of its own, with this one's environment.

    Args:
        action: Found by its name in the new process; a number that it returns is the exit status.
        arguments: Its arguments.
        said: The file that takes what it prints, and its tracebacks; None discards them.
    """
    process = warm().Process(target=_run, args=(dict(os.environ), str(said or os.devnull), action, arguments))
    process.start()
    return process


def draw_nothing() -> None:
    """Let runs in this process draw no pictures, as `tests.conftest` has it for runs in the test's own."""
    from rekindle.report import run_pictures

    run_pictures.write_pictures = run_pictures.write_samples = lambda *_: None


def _run(environment: dict[str, str], said: str, action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(handle, stream)
    check_loaded()
    raise SystemExit(action(*arguments))


def check_loaded() -> None:
    """In the process itself: nothing says so where loading failed, and all would be loaded anew in each."""
    if PRELOAD not in sys.modules:
        raise RuntimeError(f"{PRELOAD} is not loaded")
