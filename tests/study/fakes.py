"""Runs of a study that train nothing. Functions stand in a module of their own, where worker processes find them by name."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from rekindle.study.grid import Cell

GRID: dict[str, Any] = {
    "name": "fake", "seeds": 3, "sizes": [10, 30], "base": {"model": "tiny", "epochs": 3},
    "regularizers": {"L2": "l2", "L2-SP": "l2_sp"}, "tasks": {"cats": {"data": "cats"}, "dogs": {"data": "dogs"}},
    "methods": {"Original": "{regularizer}", "RIFLE": "{regularizer}+rifle(periods=2)", "Dropout": "{regularizer}+dropout(p=0.2)"},
}  # fmt: skip


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
    split = {"val": {"accuracy": value - 0.05}, **({"test": {"accuracy": value}} if cell.spec.test else {})}
    lines = [json.dumps({"epoch": epoch, "val": {"accuracy": value * (epoch + 1) / 3}}) + "\n" for epoch in range(3)]
    (folder / "metrics.jsonl").write_text("".join(lines), "utf-8")
    (folder / "result.json").write_text(json.dumps({**split, "lr": 0.01, "timing": {"seconds": 2.0 + (cell.method == "RIFLE")}}), "utf-8")
    return folder
