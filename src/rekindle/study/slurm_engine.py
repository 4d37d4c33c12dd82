"""Cells on a Slurm cluster: jobs that take the next free cell until none is left, sent by submitit.

Every cell is done under its lease, as by the other engines, so all may work in one folder, which the machines share. A job whose time
is over, or that is preempted, saves the run in hand; whoever comes next goes on with it.
"""

import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rekindle.errors import UserError, first_line, number_of
from rekindle.study.local_engine import POLL, THREADS, Notice, Reporter, finished, take_cells
from rekindle.study.store import Study
from rekindle.study.worker import TrainCell, train

SLURM = "slurm"
ENDED = ("TIMEOUT", "PREEMPTED", "DEADLINE", "CANCELLED")  # Slurm's words for jobs that it ended, also "CANCELLED by 1000".


def run_slurm(
    study: Study, *, jobs: int = 1, settings: Mapping[str, str] | None = None, notice: Notice = lambda text: None,
    train_cell: TrainCell = train, cluster: str = SLURM,
) -> None:  # fmt: skip
    """Send jobs, and wait until every cell is settled, also those that other commands have in hand.

    Args:
        study: The study; its folder, the data and the weights must have the same paths on every machine.
        jobs: Slurm jobs, each of which does one cell at a time.
        settings: Options of sbatch by name, such as {"partition": "gpu", "time": "120"}; one CPU for each of the study's threads by default.
        notice: Told of each cell that is finished or failed.
        train_cell: What to do with a cell.
        cluster: submitit's name of one; "local" tries the engine on this machine, without Slurm.

    Raises:
        UserError: If submitit or Slurm is not installed, sbatch does not know a setting, or all jobs ended before the study.
        KeyboardInterrupt: After Ctrl-C; jobs are cancelled, and runs in hand have saved their state.
    """
    executor = _executor(study, dict(settings or {}), cluster)
    news = Reporter(study, notice)
    with executor.batch():
        sent = [executor.submit(_job, str(study.folder.resolve()), train_cell) for _ in range(jobs)]
    notice(f"{number_of(len(sent), 'Slurm job')} sent: {', '.join(job.job_id for job in sent)}.")
    ended: set[str] = set()
    try:
        while not finished(study):
            began = time.monotonic()
            news.tell()
            for job in sent:
                if job.done() and job.job_id not in ended:
                    ended.add(job.job_id)
                    _record_death(study, job)
            if len(ended) == len(sent):
                break
            time.sleep(max(POLL, 5 * (time.monotonic() - began)))
    finally:
        for job in sent:
            if not job.done():
                job.cancel(check=False)
    news.tell()
    _refuse_what_is_left(study)


def _job(folder: str, train_cell: TrainCell) -> None:
    """What a job does, on whatever machine."""
    study = Study.open(Path(folder))
    os.environ.update(dict.fromkeys(THREADS, str(study.threads)))
    take_cells(study, train_cell, Ending())


class Ending:
    """Whether the job is to end: Slurm warns a while before its time is over, by a signal that submitit names, and by a termination signal.

    While a run trains, it listens to the termination signal itself and saves its state; before and after, this does.
    """

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)
        warning = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}", None)
        if warning is not None:
            signal.signal(warning, self._warn)

    def __call__(self) -> bool:
        """Whether to stop here and now; never in the midst of training, which first saves its state."""
        return self._asked and signal.getsignal(signal.SIGTERM) == self._ask

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True

    def _warn(self, number: int, frame: Any) -> None:
        self._asked = True  # Also for a run that trains: its last step may be done, after which it looks no more.
        os.kill(os.getpid(), signal.SIGTERM)


def _executor(study: Study, settings: dict[str, str], cluster: str) -> Any:
    try:
        import submitit
    except ImportError:
        raise UserError("--engine slurm needs submitit; type pip install 'rekindle[study]', or leave --engine out.") from None
    if cluster == SLURM and shutil.which("sbatch") is None:
        raise UserError("--engine slurm needs Slurm, and this machine has no sbatch; start it on a login node of the cluster.")
    executor = submitit.AutoExecutor(folder=str(study.folder.resolve() / "slurm"), cluster=cluster)
    executor.update_parameters(name=f"rekindle-{study.grid.name}")
    given = {"cpus_per_task": str(study.threads), **settings}
    try:
        executor.update_parameters(**{f"slurm_{name.replace('-', '_')}": _value(text) for name, text in given.items()})
    except (NameError, TypeError, ValueError) as error:
        raise UserError(f"--slurm: {first_line(error)}.") from None
    return executor


def _value(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _record_death(study: Study, job: Any) -> None:
    """Take note of a job that died with a cell in hand; one that Slurm ended before it had saved the run is no crash."""
    if (error := job.exception()) is None:
        return
    ended = str(job.state).startswith(ENDED)
    for cell in study.cells():
        if ended:
            study.left(cell.key)
        else:
            study.crashed(cell.key, f"in Slurm job {job.job_id} ({first_line(error)})")


def _refuse_what_is_left(study: Study) -> None:
    left = sum(not study.settled(cell) for cell in study.cells()) + study.unknown_cells()
    if left:
        raise UserError(
            f"all Slurm jobs ended with {number_of(left, 'run')} to do; what they said is in {study.folder / 'slurm'}. Give the command again to go on."
        )
