"""Cells on this machine: some processes, each with its threads capped, that take the next free cell until none is left."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rekindle.errors import Stopped
from rekindle.report.format import split_title
from rekindle.study.store import Study
from rekindle.study.worker import TrainCell, never, run_cell, train
from rekindle.training.allocator import keep_freed_memory

POLL, RARELY = 0.2, 50  # Seconds between two looks at least, and in multiples of what a look takes.
PATIENCE = 60.0
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Notice = Callable[[str], None]


def run_local(study: Study, *, jobs: int = 1, notice: Notice = lambda text: None, train_cell: TrainCell = train) -> None:
    """Do every cell that is not settled. Returns when all are, also those that other commands have in hand.

    Args:
        study: The study.
        jobs: Processes. With GPUs, process i uses GPU i modulo their number.
        notice: Told of each cell that is finished or failed, by any command.
        train_cell: What to do with a cell; found by name in each process.

    Raises:
        KeyboardInterrupt: After Ctrl-C or a termination signal; runs in hand have saved their state.
    """
    context = start_ahead(study.threads)
    gpus = _gpus()
    workers: dict[int, Any] = {}
    news = Reporter(study, notice)
    with _termination_as_interrupt(), _environment(dict.fromkeys(THREADS, str(study.threads))):
        try:
            while True:
                began = time.monotonic()
                news.tell()
                everything_settled = finished(study)
                for number, worker in list(workers.items()):
                    if not worker.is_alive():
                        _record_death(study, workers.pop(number))
                if everything_settled and not workers:
                    break
                # A large study takes a while to look through; looking must stay cheap beside the runs, which have all cores.
                pause = max(POLL, RARELY * (time.monotonic() - began))
                for number in range(jobs if not everything_settled else 0):
                    if number not in workers:
                        with _environment({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}):
                            workers[number] = context.Process(target=_worker, args=(study.folder, train_cell, dict(os.environ)))
                            workers[number].start()
                wait([worker.sentinel for worker in workers.values()], pause)  # The end of one is worth a look at once.
        finally:
            # One may not have begun when the command was asked to stop; if it begins after all, it ends with this process.
            _stop([worker for worker in workers.values() if worker.pid is not None])
    news.tell()


def start_ahead(threads: int) -> Any:
    """Let the process that a study's own are forked from import what they need; it goes on by itself, while this one forecasts.

    Args:
        threads: Of each run.

    Returns:
        The context that makes processes: "forkserver", or "spawn" where there is none, as on Windows.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # It would let Ctrl-C through again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rekindle.study.preloaded"])
    # Ctrl-C is for the command alone, also while the other process imports, where it would end in a traceback.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(dict.fromkeys(THREADS, str(threads))):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def finished(study: Study) -> bool:
    """Whether no cell is left to do and none waits for a selection that can still come out.

    Returns:
        True where the study is over.
    """
    return all(study.settled(cell) for cell in study.cells()) and not study.unknown_cells()


class Reporter:
    """Tells of each cell once, when it is settled."""

    def __init__(self, study: Study, notice: Notice) -> None:
        self._study, self._notice = study, notice
        self._told = {cell.key for cell in study.cells() if study.settled(cell)}

    def tell(self) -> None:
        """Say what is new."""
        cells = self._study.cells()
        for cell in cells:
            if cell.key not in self._told and self._study.settled(cell):
                self._told.add(cell.key)
                total = len(cells) + self._study.unknown_cells()
                self._notice(f"[{len(self._told & {c.key for c in cells})}/{total}] {cell}: {outcome(self._study, cell)}")


def outcome(study: Study, cell: Any) -> str:
    """What became of a settled cell, in words.

    Returns:
        A word or two, such as an accuracy, for a line of the terminal.
    """
    record = study.record(cell.key)
    if record.get("state") == "failed":
        return f"FAILED: {record.get('error')}"
    result = study.result(cell)
    split = "test" if "test" in result else "val"
    return f"{100 * result[split]['accuracy']:.1f} % on {split_title(split)}, {result['timing']['seconds']:.0f} s"


def _worker(folder: Path, train_cell: TrainCell, environment: dict[str, str]) -> None:
    """Take cells in a process of its own."""
    os.environ.clear()  # A forked process has the environment of the one that it was forked from, which may be another study's.
    os.environ.update(environment)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is for the command alone, which passes one signal on, so that the run in hand saves its state.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    study = Study.open(folder)
    if "torch" in sys.modules:  # Imported before the fork, with the threads of that time.
        sys.modules["torch"].set_num_threads(study.threads)
    take_cells(study, train_cell)


def take_cells(study: Study, train_cell: TrainCell, stopping: Callable[[], bool] = never) -> None:
    """Do the next free cell until none is left, or `stopping` says that it is time to end."""
    keep_freed_memory()
    with suppress(Stopped):  # A run that was asked to stop has saved its state: that is no error.
        while not stopping() and not finished(study):
            if not any(run_cell(study, cell, train_cell, stopping) for cell in study.cells() if not study.settled(cell)):
                time.sleep(POLL)


def _die_with_parent() -> None:
    """Where the command is killed, its processes must not go on unseen: the run in hand saves its state and stops."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _record_death(study: Study, worker: Any) -> None:
    """Take note of a process that died with a cell in hand."""
    if worker.exitcode == 0:
        return
    code = worker.exitcode
    why = f"by signal {-code} ({signal.strsignal(-code)}); often that is a lack of memory" if code < 0 else f"with exit status {code}"
    for cell in study.cells():
        study.crashed(cell.key, why, worker.pid)


def _stop(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    end = time.monotonic() + PATIENCE
    try:
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()


def _gpus() -> list[str]:
    """GPUs of this machine by number, or those that CUDA_VISIBLE_DEVICES allows."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name for name in allowed.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, which new processes inherit, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat a termination signal as Ctrl-C, so that processes are stopped properly."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
