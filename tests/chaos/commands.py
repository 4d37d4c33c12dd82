"""The commands that the chaos run disturbs, as they run in a process of their own."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

from rekindle.cli import main
from rekindle.report import run_pictures
from rekindle.study import local_engine
from rekindle.study.local_engine import run_local
from rekindle.study.store import Study
from rekindle.study.worker import TrainCell

EPOCHS = 3
FIT = ["--model", "tiny", "--image-size", "16", "--epochs", str(EPOCHS), "--batch-size", "6", "--precision", "32", "--lr", "0.01"]


def fit(data: Path, out: Path, *more: str) -> int:
    """Train, with a cache that is cold at the start, and without pictures, which take most of the time and are not at risk."""
    os.environ["REKINDLE_HOME"] = str(out / "home")
    undrawn()
    return main(["fit", str(data), *FIT, "--out", str(out / "runs"), *more])


def undrawn() -> None:
    """Draw no pictures of runs in this process."""

    def nothing(*arguments: Any) -> None: ...

    run_pictures.write_samples = run_pictures.write_pictures = nothing


def run_study(study: Study, jobs: int, train_cell: TrainCell) -> int:
    """Do a study's cells as the command does, by workers that are forked from this process instead of started anew."""
    fork = multiprocessing.get_context("fork")
    local_engine.start_ahead = lambda threads: fork
    run_local(study, jobs=jobs, train_cell=train_cell)
    return 0


def run_of(out: Path) -> Path:
    """The one run that `fit` made."""
    [folder] = (out / "runs").iterdir()
    return folder
