"""Runs of a study that train nothing. Functions stand in a module of their own, where worker processes find them by name."""

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from rekindle.errors import Stopped
from rekindle.records import METRICS, RESULT
from rekindle.study.grid import Cell

GRID: dict[str, Any] = {
    "name": "fake", "seeds": 3, "sizes": [10, 30], "base": {"model": "tiny", "epochs": 3},
    "regularizers": {"L2": "l2", "L2-SP": "l2_sp"}, "tasks": {"cats": {"data": "cats"}, "dogs": {"data": "dogs"}},
    "methods": {"Original": "{regularizer}", "RIFLE": "{regularizer}+rifle(periods=2)", "Dropout": "{regularizer}+dropout(p=0.2)"},
}  # fmt: skip
CLASSES = ["a", "b"]


def share(*parts: Any) -> float:
    """A number from 0 to 1 that the parts decide."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) / 0xFFFFFFFF


def accuracy(cell: Cell) -> float:
    """What a cell's run gets: RIFLE is about two points better, everything else is luck."""
    return round(0.6 + 0.02 * (cell.method == "RIFLE") + 0.01 * share(str(cell.setting), cell.method, cell.candidate, cell.spec.seed), 6)


def answer(cell: Cell, runs: Path, listener: Any) -> Path:
    """Write a run folder, and count the call."""
    count(cell, runs)
    return write(cell, runs, accuracy(cell))


def slow(cell: Cell, runs: Path, listener: Any) -> Path:
    """As `answer`, after a while."""
    count(cell, runs)
    time.sleep(0.15)
    return write(cell, runs, accuracy(cell))


def half_broken(cell: Cell, runs: Path, listener: Any) -> Path:
    """Fails for Dropout, and dies for RIFLE at seed 1 on cats."""
    count(cell, runs)
    if cell.method == "Dropout":
        raise ValueError("the mask <b>is</b> broken\nsecond line")
    if cell.method == "RIFLE" and cell.spec.seed == 1 and cell.setting.task == "cats":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(cell, runs, accuracy(cell))


def interrupted(cell: Cell, runs: Path, listener: Any) -> Path:
    """Is told to stop, as a job whose time is over."""
    raise Stopped(str(runs))


def warned_while_reading(cell: Cell, runs: Path, listener: Any) -> Path:
    """Is warned of the end of its job while it reads pictures."""
    count(cell, runs)
    os.kill(os.getpid(), signal.SIGUSR2)
    listener.progress("reading pictures", 1, 2)
    return write(cell, runs, accuracy(cell))


def warned_at_the_end(cell: Cell, runs: Path, listener: Any) -> Path:
    """Is warned of the end of its job when all is measured."""
    count(cell, runs)
    os.kill(os.getpid(), signal.SIGUSR2)
    return write(cell, runs, accuracy(cell))


def busy_second(cell: Cell, runs: Path, listener: Any) -> Path:
    """Computes for one second of processor time."""
    end = time.process_time() + 1
    while time.process_time() < end:
        pass
    return write(cell, runs, accuracy(cell))


def count(cell: Cell, runs: Path) -> None:
    """One line a call, in one write."""
    runs.mkdir(parents=True, exist_ok=True)
    with open(runs.parent / "calls", "a", encoding="utf-8", buffering=1) as file:
        file.write(f"{cell.key}\n")


def write(cell: Cell, runs: Path, value: float) -> Path:
    """A run folder with what a report reads."""
    folder = runs / f"run <i>{cell.key}"
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"val": measured(value - 0.05), **({"test": measured(value)} if cell.spec.test else {})}
    lines = [METRICS.line(epoch(number, value * (number + 1) / 3)) for number in range(3)]
    (folder / "metrics.jsonl").write_text("".join(lines), "utf-8")
    RESULT.write(folder / "result.json", {
        "id": cell.key, "method": cell.method, "model": "tiny", "data": cell.spec.data, "seed": cell.spec.seed, "lr": 0.01, "classes": CLASSES,
        "epochs": 3, "kept_epoch": 2, **splits, "timing": {"seconds": 2.0 + (cell.method == "RIFLE")},
    })  # fmt: skip
    return folder


def measured(accuracy: float) -> dict[str, Any]:
    """Figures of a split."""
    count, figures = 10**6, {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    right = round(count * accuracy)
    return {
        "loss": 0.5, "accuracy": accuracy, "macro_f1": 1.0, "calibration_error": 0.1, "count": count,
        "per_class": [{"name": name, **figures} for name in CLASSES], "confusion": [[right, count - right], [0, 0]],
    }  # fmt: skip


def epoch(number: int, accuracy: float) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    figures = {"loss": 0.5, "accuracy": accuracy}
    return {"epoch": number, "train": figures, "val": figures, "restarted": False, "timing": {"seconds": 1.0, "images_per_second": 9.0}}
