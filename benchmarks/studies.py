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

from benchmarks.pictures import picture_folder

MODEL, SIZE, EPOCHS = "torchvision:squeezenet1_0", 64, 12
SPLITS = {"train": 10, "val": 2, "test": 10}  # Pictures a class.
METHODS, SEEDS, ALONE = {"Original": "l2", "RIFLE": "l2+rifle(periods=2)"}, 5, 2


def measure(rounds: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Runs an hour by the clock, as medians, and the ratios of each round.

    Args:
        rounds: How often everything is measured, in turn, after one run that fills the cache of pictures.
        told: Given each figure.
    """
    found: dict[str, list[float]] = {"alone": [], "one": [], "two": [], "one_going": [], "two_going": [], "training": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture_folder(folder / "photos", SPLITS)
        _alone(folder, 0, 0)
        for number in range(1, 1 + rounds):
            found["alone"].append(3600 / statistics.mean(_alone(folder, number, seed) for seed in range(ALONE)))
            for jobs, place in ((1, "one"), (2, "two")):
                seconds = _study(folder, number, jobs)
                found[place].append(3600 * len(METHODS) * SEEDS / seconds)
                found[f"{place}_going"].append(_going(folder / f"study-{number}-{jobs}", jobs))
            found["training"].append(_training(folder / f"study-{number}-1"))
            told(f"runs an hour: {', '.join(f'{place} {values[-1]:.0f}' for place, values in found.items())}")
    return {
        "model": MODEL, "size": SIZE, "epochs": EPOCHS, "pictures": 10 * SPLITS["train"], "cells": len(METHODS) * SEEDS, "rounds": rounds,
        **{place: statistics.median(values) for place, values in found.items()},
        "jobs": _range(found["two"], found["one"]), "jobs_going": _range(found["two_going"], found["one_going"]), "warm": _range(found["one"], found["alone"]),
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
