"""How many small runs an hour a study gets through: with one job and with two, and run by run, each by a command of its own."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.machine import DEVICE
from benchmarks.pictures import picture_folder

GPU = DEVICE.type == "cuda"
MODEL, SIZE, EPOCHS = ("torchvision:resnet18", 128, 12) if GPU else ("torchvision:squeezenet1_0", 64, 12)
SPLITS = {"train": 100 if GPU else 10, "val": 2, "test": 10}  # Pictures a class.
JOBS = (1, 4, 8) if GPU else (1, 2)
METHODS, SEEDS, ALONE = {"Original": "l2", "RIFLE": "l2+rifle(periods=2)"}, 8 if GPU else 5, 2


def measure(rounds: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Runs an hour by the clock, as medians, and the ratios of each round.

    Args:
        rounds: How often everything is measured, in turn, after one run that fills the cache of pictures.
        told: Given each figure.
    """
    alone: list[float] = []
    training: list[float] = []
    whole: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    going: dict[int, list[float]] = {jobs: [] for jobs in JOBS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture_folder(folder / "photos", SPLITS)
        _alone(folder, 0, 0)
        for number in range(1, 1 + rounds):
            alone.append(3600 / statistics.mean(_alone(folder, number, seed) for seed in range(ALONE)))
            for jobs in JOBS:
                seconds = _study(folder, number, jobs)
                whole[jobs].append(3600 * len(METHODS) * SEEDS / seconds)
                going[jobs].append(_going(folder / f"study-{number}-{jobs}", jobs))
            training.append(_training(folder / f"study-{number}-1"))
            told(f"runs an hour: alone {alone[-1]:.0f}, by jobs {whole}, while it goes {going}")
    rows = [
        {
            "jobs": jobs, "whole": statistics.median(whole[jobs]), "going": statistics.median(going[jobs]),
            "over_commands": _range(whole[jobs], alone), "over_one": _range(whole[jobs], whole[1]), "going_over_one": _range(going[jobs], going[1]),
        }
        for jobs in JOBS
    ]  # fmt: skip
    return {
        "model": MODEL, "size": SIZE, "epochs": EPOCHS, "pictures": 10 * SPLITS["train"], "cells": len(METHODS) * SEEDS, "rounds": rounds,
        "alone": statistics.median(alone), "training": statistics.median(training), "rows": rows,
    }  # fmt: skip


def _range(one: list[float], other: list[float]) -> dict[str, float]:
    ratios = [mine / theirs for mine, theirs in zip(one, other, strict=True)]
    return {"low": min(ratios), "median": statistics.median(ratios), "high": max(ratios)}


def _alone(folder: Path, number: int, seed: int) -> float:
    """Seconds of one run as a command of its own, which draws its pictures."""
    words = ["fit", "photos", "--model", MODEL, "--weights", "none", "--image-size", str(SIZE), "--epochs", str(EPOCHS), "--method", "l2"]
    return _seconds(folder, [*words, "--seed", str(seed), "--out", f"runs-{number}"])


def _study(folder: Path, number: int, jobs: int) -> float:
    """Seconds of a whole study, from the command to its end."""
    name = f"study-{number}-{jobs}"
    grid = {
        "name": name, "baseline": "Original", "seeds": SEEDS, "sizes": [0], "methods": METHODS, "tasks": {"photos": {"data": "photos"}},
        "base": {"model": MODEL, "weights": "none", "image_size": SIZE, "epochs": EPOCHS},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(grid), "utf-8")
    return _seconds(folder, ["study", "run", f"{name}.yaml", "--out", name, "--jobs", str(jobs)])


def _going(study: Path, jobs: int) -> float:
    """Runs an hour between the first and the last that ended: without the command's start, which a longer study has once, too."""
    ends = sorted(path.stat().st_mtime for path in study.glob("runs/*/result.json"))
    return 3600 * (len(ends) - jobs) / (ends[-1] - ends[0])


def _training(study: Path) -> float:
    """Seconds that a run of a study trains, of those that it takes."""
    from rekindle.records import read_result

    return statistics.median(read_result(path.parent)["timing"]["seconds"] for path in study.glob("runs/*/result.json"))


def _seconds(folder: Path, words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rekindle", *words], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began
