"""What a shell does to a study, in a process of its own, which finds it here by its name and imports nothing else for it."""

import multiprocessing
import os
from pathlib import Path
from typing import Literal

from rekindle.cli import main
from rekindle.study import local_engine
from rekindle.study.local_engine import run_local
from rekindle.study.store import Study
from tests.faults.warm import draw_nothing
from tests.study import fakes


def run_fakes(folder: Path, jobs: int) -> None:
    """Go on with a study whose runs train nothing, in processes that import nothing for them."""
    local_engine.start_ahead = lambda threads: multiprocessing.get_context("spawn")
    run_local(Study.open(folder), jobs=jobs, train_cell=fakes.slow)


def run_grid(place: Path, workers: Literal["product", "fork"]) -> int:
    """The command with a grid that trains, with workers as the product has them, or that are forked from this process."""
    os.chdir(place)
    os.environ |= {"REKINDLE_DATA": str(place / "data"), "REKINDLE_HOME": str(place / "home"), "CUDA_VISIBLE_DEVICES": ""}
    if workers == "fork":
        context = multiprocessing.get_context("fork")
        local_engine.start_ahead = lambda threads: context
    draw_nothing()
    return main(["study", "run", "grid.yaml", "--jobs", "1"])
