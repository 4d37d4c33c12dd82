"""How long commands take to begin, and a short run to end: each in a process of its own, all in turn."""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pictures import picture_folder

FIRST_STEP = """
import sys
import rekindle
from rekindle.errors import Stopped
from rekindle.training.allocator import keep_freed_memory
from rekindle.training.listener import Silent
class Watching(Silent):
    def step(self, epoch, epochs, step, *rest):
        raise Stopped("seen")
keep_freed_memory()
try:
    rekindle.fit(sys.argv[1], out=sys.argv[2], epochs=1, image_size=128, listener=Watching(), **{options})
except Stopped:
    pass
"""
BASE, FIRST, WHOLE = "import torch, torchvision", "first step of a run", "run of one epoch"
SMALL = {"model": "torchvision:squeezenet1_0", "weights": "none"}  # Beside the installed network.
COMMAND = ["-m", "rekindle"]
RUN = [*COMMAND, "fit", "{photos}", "--out", "{out}", "--epochs", "1", "--image-size", "128"]
PROGRAMS = {
    BASE: ["-c", "import torch, torchvision"],
    "rekindle --help": [*COMMAND, "--help"],
    "rekindle methods": [*COMMAND, "methods"],
    "rekindle models": [*COMMAND, "models"],
    "import rekindle": ["-c", "import rekindle"],
    "rekindle.fit, named": ["-c", "import rekindle; rekindle.fit"],
    FIRST: ["-c", FIRST_STEP.format(options={}), "{photos}", "{out}"],
    WHOLE: RUN,
    f"{FIRST}, SqueezeNet": ["-c", FIRST_STEP.format(options=SMALL), "{photos}", "{out}"],
    f"{WHOLE}, SqueezeNet": [*RUN, *(word for name, value in SMALL.items() for word in (f"--{name}", value))],
}
SPLITS = {"train": 30, "val": 5, "test": 5}  # Pictures a class.


def measure(rounds: int, told: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of the clock and of the processor, and their multiple of what importing torch and torchvision takes; medians.

    Args:
        rounds: How often everything is measured, after one round that fills caches.
        told: Given each figure.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as folder:
        pictures = picture_folder(Path(folder, "photos"), SPLITS)
        for number in range(1 + rounds):
            for name, program in PROGRAMS.items():
                places = {"{photos}": str(pictures), "{out}": str(Path(folder, f"{name} {number}"))}
                figures = _seconds([places.get(word, word) for word in program])
                told(f"{name}: {figures[0]:.2f} s, of the processor {figures[1]:.2f} s")
                found[name] += [figures] if number else []
    rows = [_row(name, figures, found[BASE]) for name, figures in found.items()]
    return {"rounds": rounds, "pictures": 10 * SPLITS["train"], "rows": rows}


def _row(name: str, figures: list[tuple[float, float]], base: list[tuple[float, float]]) -> dict[str, Any]:
    clock, processor = (statistics.median(column) for column in zip(*figures, strict=True))
    ratios = [mine[1] / theirs[1] for mine, theirs in zip(figures, base, strict=True)]
    return {
        "name": name,
        "clock": clock,
        "processor": processor,
        "low": min(ratios),
        "median": statistics.median(ratios),
        "high": max(ratios),
    }


def _seconds(arguments: list[str]) -> tuple[float, float]:
    """Of the clock and of the processor, for a Python process."""
    began, spent = time.perf_counter(), _processor()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began, _processor() - spent


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
