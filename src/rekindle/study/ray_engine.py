"""Cells on a Ray cluster: one machine or many that share the study's folder, with CPUs or shares of a GPU for each cell.

Every cell is done under its lease, as by the local engine, so both may work in one folder. A worker that is lost leaves a
lease that nobody holds; its cell is given out again and goes on from its newest checkpoint.
"""

import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rekindle.errors import Stopped, UserError, first_line
from rekindle.study.local_engine import POLL, THREADS, Notice, Reporter, finished
from rekindle.study.store import Study
from rekindle.study.worker import TrainCell, run_cell, train

LOCAL = "local"
REACH_SECONDS = 10.0


def run_ray(
    study: Study, *, address: str = LOCAL, jobs: int | None = None, cpus: float = 1.0, gpus: float | None = None, notice: Notice = lambda text: None,
    train_cell: TrainCell = train,
) -> None:  # fmt: skip
    """Do every cell that is not settled, on Ray. Returns when all are, also those that other commands have in hand.

    Args:
        study: The study; its folder, the data and the weights must have the same paths on every machine.
        address: Of a running cluster, such as "auto" or "ray://head:10001"; "local" starts one on this machine, for its user alone.
        jobs: Cells at a time; None gives out as many as the cluster has CPUs and GPUs for.
        cpus: CPUs that a cell takes.
        gpus: GPUs that a cell takes; 0.25 lets four cells share one, 0 hides them, None takes one where the cluster has any.
        notice: Told of each cell that is finished or failed.
        train_cell: What to do with a cell.

    Raises:
        UserError: If Ray is not installed, the cluster cannot be reached, or has not the CPUs or GPUs that a cell asks for.
    """
    ray = _connect(address, jobs, cpus)
    try:
        has = ray.cluster_resources()
        gpus = min(1.0, has.get("GPU", 0.0)) if gpus is None else gpus
        _refuse_what_cannot_run(has, cpus, gpus)
        variables = {**dict.fromkeys(THREADS, str(study.threads)), **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})}
        task = ray.remote(_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": variables})
        _drive(ray, task, study, jobs, notice, train_cell)
    finally:
        ray.shutdown()


def _drive(ray: Any, task: Any, study: Study, jobs: int | None, notice: Notice, train_cell: TrainCell) -> None:
    news = Reporter(study, notice)
    given: dict[Any, str] = {}
    while True:
        began = time.monotonic()
        news.tell()
        done, _ = ray.wait(list(given), num_returns=len(given), timeout=0) if given else ([], [])
        for reference in done:
            _take(ray, study, reference, given.pop(reference))
        if not given and finished(study):
            break
        taken = set(given.values())
        for cell in study.cells():
            if jobs is not None and len(given) >= jobs:
                break
            if cell.key not in taken and not study.settled(cell) and not study.is_leased(cell.key):
                given[task.remote(str(study.folder.resolve()), cell.key, train_cell)] = cell.key
        time.sleep(max(POLL, 5 * (time.monotonic() - began)))
    news.tell()


def _cell(folder: str, key: str, train_cell: TrainCell) -> None:
    """Do one cell, wherever Ray puts it."""
    study = Study.open(Path(folder))
    with suppress(Stopped):
        for cell in study.cells():
            if cell.key == key:
                run_cell(study, cell, train_cell)


def _take(ray: Any, study: Study, reference: Any, key: str) -> None:
    """See how a task ended. One whose worker or machine was lost counts as a crash of its cell, if the cell was in hand."""
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        study.fail(key, f"outside the run: {first_line(error.cause)}")
    except ray.exceptions.RayError as error:
        study.crashed(key, f"on Ray ({type(error).__name__})")


def _connect(address: str, jobs: int | None, cpus: float) -> Any:
    if address == LOCAL:
        _keep_to_this_machine()
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray; type pip install 'rekindle[study]', or leave --engine out.") from None
    _check_reachable(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = (
        {"include_dashboard": False, "num_cpus": max(1, round((jobs or 1) * cpus)) if jobs else None} if address == LOCAL else {}
    )
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _silent(address, error) from None
    return ray


def _keep_to_this_machine() -> None:
    """Let the Ray that is started here listen on the loopback address alone and answer nobody without its token.

    Ray looks at the first when it is imported, and from 2.59 on it asks for a token unless it is told otherwise. Without one in the
    environment it would keep one in the user's folder, which not every user has.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # What Ray does on these systems by itself.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _check_reachable(address: str) -> None:
    """Ray itself waits for minutes where nobody listens."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise _silent(address, error) from None


def _silent(address: str, error: Exception) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address} ({first_line(error)}); start one with ray start --head, or take --address local."
    )


def _refuse_what_cannot_run(found: dict[str, float], cpus: float, gpus: float) -> None:
    """Ray would wait for ever for what the cluster has not got."""
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > found.get(name, 0.0):
            raise UserError(
                f"a cell asks for {wanted:g} {name}s and the cluster has {found.get(name, 0.0):g}; give --{name.lower()}s-per-run a smaller number."
            )
