"""`rekindle study`: run a grid of runs, see how far it is, report on it."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.cli.output import add_command, console, drawn, table
from rekindle.errors import UserError, number_of
from rekindle.spec import Threads, Units, check_value
from rekindle.training.progress import ProgressBar

if TYPE_CHECKING:
    from rekindle.oracle.study import OracleStudy
    from rekindle.study.status import Status
    from rekindle.study.store import Study

OK, FAILED = 0, 1
MOST_JOBS = 4
REFRESH = 2.0


def register(commands: Any) -> None:
    """Add the command with its three actions."""
    text = "run methods x tasks x sizes x seeds, and report with honest statistics"
    study = add_command(commands, "study", text, "rekindle study run grid.yaml --dry-run")
    actions = study.add_subparsers(title="actions", required=True, metavar="ACTION")
    for add in (_add_run, _add_status, _add_report):
        add(actions)


def _add_run(actions: Any) -> None:
    more = "It may be killed at any moment and started again, also from several shells at once: nothing is done twice."
    run = add_command(actions, "run", "run every cell of a grid that is not done", "rekindle study run grid.yaml --jobs 2", more)
    run.add_argument("grid", help="the study's YAML file")
    run.add_argument("--dry-run", action="store_true", help="show the plan and what it will cost, and run nothing")
    run.add_argument(
        "--scale", choices=("full", "small"), default="full", help="small takes what stands under the grid's key 'small' (default: full)"
    )
    run.add_argument("--out", help="the study's folder (default: study-NAME, or study-NAME-small)")
    run.add_argument("--jobs", type=int, help="runs at a time (default: one for each GPU, or else one for each core, at most 4)")
    run.add_argument(
        "--engine",
        choices=("local", "ray", "slurm"),
        default="local",
        help="processes on this machine, a Ray cluster, or jobs on a Slurm cluster (default: local)",
    )
    run.add_argument(
        "--address",
        default="local",
        help="Ray: the cluster's address, auto for the one that this machine is in, or local to start one (default: local)",
    )
    run.add_argument("--cpus-per-run", type=float, default=1.0, metavar="N", help="Ray: CPUs that a run takes (default: 1)")
    run.add_argument(
        "--gpus-per-run", type=float, metavar="N", help="Ray: GPUs that a run takes, such as 0.25 (default: 1 where there are any)"
    )
    run.add_argument(
        "--slurm",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="Slurm: options of sbatch, such as partition=gpu time=120 gpus_per_node=1",
    )
    run.add_argument(
        "--threads", type=int, help="threads of each run, one number for the whole study (default: 1, or what the study began with)"
    )
    run.add_argument("--retry", action="store_true", help="try failed cells again")
    run.add_argument(
        "--data-root", default=os.environ.get("REKINDLE_DATA"), help="folder in which the tasks' data lie (default: $REKINDLE_DATA)"
    )
    run.add_argument(
        "--weights-root",
        default=os.environ.get("REKINDLE_WEIGHTS"),
        help="folder in which files of weights lie (default: $REKINDLE_WEIGHTS)",
    )
    run.add_argument("--json", action="store_true", help="print plan or outcome as JSON")
    run.set_defaults(act=_run)


def _add_status(actions: Any) -> None:
    status = add_command(actions, "status", "how far a study is", "rekindle study status study-clothes", "Live on a terminal.")
    status.add_argument("folder", help="the study's folder")
    status.add_argument("--once", action="store_true", help="look once, also on a terminal")
    status.add_argument("--json", action="store_true", help="print one look as JSON")
    status.set_defaults(act=_status)


def _add_report(actions: Any) -> None:
    text = "write tables, figures and a page from the runs that are done"
    more = "Tables come as Markdown, CSV and LaTeX; the page opens offline. All lies in FOLDER/report."
    report = add_command(actions, "report", text, "rekindle study report study-clothes --published", more)
    report.add_argument("folder", help="the study's folder")
    report.add_argument("--published", action="store_true", help="put the RIFLE paper's numbers beside ours")
    report.set_defaults(act=_report)


def _run(options: argparse.Namespace) -> int:
    from rekindle.oracle.study import load_oracle
    from rekindle.study.grid_file import check_recipes, load
    from rekindle.study.plan import plan
    from rekindle.study.status import read_status
    from rekindle.study.store import Study

    for name, hint in {"jobs": Threads | None, "threads": Threads | None, "cpus_per_run": Units, "gpus_per_run": Units | None}.items():
        check_value(f"--{name.replace('_', '-')}", getattr(options, name), hint)
    settings = _settings(options)  # Before the forecast, which takes a while.
    oracle = load_oracle(options.grid)
    if oracle is not None:
        return _run_oracle(options, oracle)
    grid = load(options.grid, scale=options.scale, data_root=options.data_root, weights_root=options.weights_root)
    check_recipes(grid)
    folder = Path(options.out or f"study-{grid.name}" + ("-small" if options.scale == "small" else ""))
    jobs = options.jobs or _jobs()
    study = (
        Study(folder, grid, options.threads or 1)
        if options.dry_run and not (folder / "study.yaml").is_file()
        else Study.create(folder, grid, options.threads)
    )
    if options.retry and not options.dry_run:
        study.reset_failed()
    if options.engine == "local" and not options.dry_run:
        from rekindle.study.local_engine import start_ahead

        start_ahead(study.threads)
    planned = plan(study)
    if options.dry_run and options.json:
        print(json.dumps(planned.to_dict()))
        return OK
    if not options.json:
        _show_plan(planned, jobs, study)
    if options.dry_run:
        return OK
    _engine(options, study, jobs, settings)
    status = read_status(study)
    if options.json:
        print(json.dumps(status.to_dict()))
    else:
        print(
            f"{status.counts['done']} of {number_of(status.total, 'run')} done, {status.counts['failed']} failed. Report: rekindle study report {folder}"
        )
    for sentence in status.damaged:
        print(f"rekindle: {sentence}", file=sys.stderr)
    for cell, error in status.failed:
        print(f"rekindle: failed: {cell}: {error}", file=sys.stderr)
    return FAILED if status.counts["failed"] else OK


def _run_oracle(options: argparse.Namespace, study: "OracleStudy") -> int:
    """The oracle experiment trains all seeds of a cell at once, in this process."""

    for name, plain in (("engine", "local"), ("scale", "full"), ("jobs", None), ("threads", None), ("retry", False)):
        if getattr(options, name) != plain:
            raise UserError(f"--{name} does nothing in an oracle study, which takes minutes in one process; leave it out.")
    folder = Path(options.out or f"study-{study.name}")
    done = study.is_done(folder)
    if options.json:
        print(json.dumps({"cells": study.cells, "seeds": study.settings.seeds, "done": done, "folder": str(folder)}))
    else:
        print(
            f"{number_of(study.cells, 'cell')} (methods x rates x noises) of {number_of(study.settings.seeds, 'seed')} each{', done before' if done else ''}: {folder}"
        )
    if done or options.dry_run:
        return OK
    with ProgressBar() as bar:
        paths = study.run(folder, bar.progress)
    if not options.json:
        print("\n".join(f"written: {path}" for path in paths))
    return OK


def _engine(options: argparse.Namespace, study: "Study", jobs: int, settings: dict[str, str]) -> None:
    def notice(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if options.engine == "ray":
        from rekindle.study.ray_engine import run_ray

        run_ray(study, address=options.address, jobs=options.jobs, cpus=options.cpus_per_run, gpus=options.gpus_per_run, notice=notice)
        return
    if options.engine == "slurm":
        from rekindle.study.slurm_engine import run_slurm

        run_slurm(study, jobs=jobs, settings=settings, notice=notice)
        return
    from rekindle.study.local_engine import run_local

    run_local(study, jobs=jobs, notice=notice)


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """What is told to Slurm, after a look at whether each engine has options of its own alone."""
    if options.engine != "ray" and (options.address != "local" or options.cpus_per_run != 1 or options.gpus_per_run is not None):
        raise UserError("--address, --cpus-per-run and --gpus-per-run are for --engine ray; add it, or leave them out.")
    if options.slurm and options.engine != "slurm":
        raise UserError("--slurm is for --engine slurm; add it, or leave it out.")
    pairs = [text.partition("=") for text in options.slurm]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise UserError(f"--slurm takes options of sbatch as NAME=VALUE, such as partition=gpu, found {name + sign + value!r}.")
    return {name: value for name, _, value in pairs}


def _jobs() -> int:
    import torch

    return torch.cuda.device_count() or min(MOST_JOBS, os.cpu_count() or 1)


def _show_plan(planned: Any, jobs: int, study: "Study") -> None:
    from rekindle.report.format import duration

    rows = [
        [str(row["setting"]), *(str(row[key]) for key in ("methods", "seeds", "runs", "done", "failed")),
         "unknown" if row["seconds"] is None else duration(row["seconds"])] for row in planned.rows
    ]  # fmt: skip
    table(["setting", "methods", "seeds", "runs", "done", "failed", "left"], rows)
    for note in planned.notes:
        print(note)
    source = (
        "finished runs"
        if planned.measured == len(planned.rows)
        else "short trials, and finished runs where there are any"
        if planned.measured
        else "short trials"
    )
    unknown = " plus the settings of unknown cost" if any(row["seconds"] is None for row in planned.rows) else ""
    print(f"{number_of(planned.runs, 'run')}, {planned.done} done, {planned.failed} failed; left: about {duration(planned.seconds)} of computing{unknown} (from {source}), "
          f"{duration(planned.seconds / jobs)} with {number_of(jobs, 'job')} of {number_of(study.threads, 'thread')} each.")  # fmt: skip


def _status(options: argparse.Namespace) -> int:
    import time

    from rekindle.study.status import read_status
    from rekindle.study.store import Study

    study = Study.open(options.folder)
    if options.json:
        print(json.dumps(read_status(study).to_dict()))
        return OK
    shown = console()
    if options.once or not sys.stdout.isatty():
        shown.print(_drawn(read_status(study), shown.width))
        return OK
    from rich.live import Live

    with Live(_drawn(read_status(study), shown.width), console=shown, auto_refresh=False) as live:
        while True:
            status = read_status(study)
            live.update(_drawn(status, shown.width), refresh=True)
            if status.finished:
                return OK
            time.sleep(REFRESH)


def _report(options: argparse.Namespace) -> int:
    from rekindle.study.report.page import write
    from rekindle.study.store import Study

    study = Study.open(options.folder)
    folder = write(study, options.published)
    for sentence in study.faults.values():
        print(f"rekindle: {sentence}", file=sys.stderr)
    print(
        f"report: {folder / 'report.html'}\ntables: {folder / 'report.md'}, {folder / 'table.csv'}, {folder / 'runs.csv'}, {folder / 'table.tex'}"
    )
    return OK


def _drawn(status: "Status", width: int) -> Any:
    """The status as tables: settings, runs in hand, failures."""
    from rich.console import Group
    from rich.text import Text

    from rekindle.report.format import duration

    shown = ["done", "running", "stopped", "waiting", "failed"]
    rows: list[list[Any]] = [
        [str(setting), *(Text(str(counts[state] or "-"), style="red" if state == "failed" and counts[state] else "") for state in shown)]
        for setting, counts in status.settings.items()
    ]
    waiting = f", {status.unknown} more after the selection" if status.unknown else ""
    parts: list[Any] = [
        Text(
            f"{status.name}: {status.counts['done']} of {number_of(status.total, 'run')} done, {status.counts['failed']} failed{waiting}."
        ),
        drawn(["setting", *shown], rows, width),
    ]
    for cell, progress in status.running:
        left = f", {duration(progress['left'])} left" if progress.get("left") else ""
        parts.append(Text(f"running: {cell}: {progress['what']}, {100 * progress['share']:.0f} %{left}"))
    parts += [Text(f"failed: {cell}: {error}", style="red") for cell, error in status.failed]
    parts += [Text(sentence, style="red") for sentence in status.damaged]
    return Group(*parts)
