"""What a shell does to a study, in a process of its own, which finds it here by its name and imports nothing else for it."""

import multiprocessing
import os
from pathlib import Path
from typing import Literal

from rekindle.cli import main
from rekindle.study.local_engine import run_local
from rekindle.study.store import Study
from tests.faults.warm import draw_nothing
from tests.study import fakes


def run_fakes(folder: Path, jobs: int) -> None:
    """Go on with a study whose runs train nothing."""
    run_local(Study.open(folder), jobs=jobs, train_cell=fakes.slow)


def run_grid(place: Path, workers: Literal["spawn", "fork"]) -> int:
    """The command with a grid that trains, with workers that load everything anew, as those of the product, or that are forked from this process."""
    os.chdir(place)
    os.environ |= {"REKINDLE_DATA": str(place / "data"), "REKINDLE_HOME": str(place / "home"), "CUDA_VISIBLE_DEVICES": ""}
    context = multiprocessing.get_context(workers)
    multiprocessing.get_context = lambda method=None: context  # type: ignore[assignment]
    draw_nothing()  # Workers that load everything anew draw all the same.
    return main(["study", "run", "grid.yaml", "--jobs", "1"])
