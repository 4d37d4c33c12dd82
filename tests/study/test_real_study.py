"""A small study from the shell, with real training: killed, taken up from two shells at once, reported; nothing done twice."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from rekindle.cli import main
from tests.faults.warm import start
from tests.study.shells import run_grid

GRID: dict[str, Any] = {
    "name": "digits", "seeds": 2, "sizes": [5], "base": {"model": "tiny", "epochs": 2, "lr": 0.01, "batch_size": 5, "precision": "32"},
    "tasks": {"digits": {"data": "digits"}}, "methods": {"Original": "l2", "RIFLE": "l2+rifle(periods=2)"},
}  # fmt: skip
Ended = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with grid.yaml and data/digits: two classes, six pictures each to train (one of them to validate), four to test."""
    digits = load_digits()
    for label in (0, 1):
        for number, index in enumerate(np.flatnonzero(digits.target == label)[:10]):
            path = tmp_path / "data" / "digits" / ("train" if number < 6 else "test") / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[index] * 255 / 16).round().astype(np.uint8)).save(path)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID), "utf-8")
    return tmp_path


@pytest.fixture
def ended(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Runs `rekindle study ...` in this process, in the folder; returns its status, and what it printed and said."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("REKINDLE_DATA", str(place / "data"))
    monkeypatch.setenv("REKINDLE_HOME", str(place / "home"))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["study", *arguments])
        return status, *capsys.readouterr()

    return run


def records(place: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in (place / "study-digits" / "cells").glob("*.json")]


def test_killed_taken_up_by_two_shells_and_reported(place: Path, ended: Ended) -> None:
    status, text, _ = ended("run", "grid.yaml", "--dry-run")
    assert status == 0 and "4 runs, 0 done, 0 failed" in text and "images/s" in text and not (place / "study-digits").exists()
    first = start(run_grid, place, "product", said=place / "first")
    while not any(record["state"] == "done" for record in records(place)):
        assert first.is_alive(), (place / "first").read_text("utf-8")
        time.sleep(0.05)
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    finished = {path.parent.name: path.stat().st_mtime_ns for path in (place / "study-digits" / "runs").glob("*/result.json")}
    shells = {place / name: start(run_grid, place, "fork", said=place / name) for name in ("second", "third")}
    for said, process in shells.items():
        process.join(300)
        assert process.exitcode == 0 and "4 of 4 runs done, 0 failed" in said.read_text("utf-8"), said.read_text("utf-8")
    after = {path.parent.name: path.stat().st_mtime_ns for path in (place / "study-digits" / "runs").glob("*/result.json")}
    assert len(after) == 4 and finished.items() <= after.items()
    # A run goes through its two epochs once, also where it was begun again.
    for name in after:
        lines = (place / "study-digits" / "runs" / name / "metrics.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]
    logs = Counter(line for path in (place / "study-digits" / "cells").glob("*.log") for line in path.read_text("utf-8").splitlines())
    assert not any("Traceback" in line for line in logs)
    found = json.loads(ended("status", "study-digits", "--json")[1])
    assert found["done"] == found["total"] == 4 and not found["running_cells"]
    assert "report.html" in ended("report", "study-digits", "--published")[1]
    page = (place / "study-digits" / "report" / "report.md").read_text("utf-8")
    assert "4 of 4 runs done" in page and "(2)" in page
    # A longer study takes over what is done: the same seeds, one more.
    (place / "grid.yaml").write_text(yaml.safe_dump({**GRID, "seeds": 3}), "utf-8")
    assert "6 runs, 4 done, 0 failed" in ended("run", "grid.yaml", "--dry-run")[1]


def test_missing_data_fail_cell_by_cell_and_the_status_says_so(place: Path, ended: Ended) -> None:
    tasks = {"digits": {"data": "digits"}, "lost": {"data": "lost"}}
    (place / "grid.yaml").write_text(yaml.safe_dump({**GRID, "seeds": 1, "tasks": tasks, "methods": {"Original": "l2"}}), "utf-8")
    _, text, _ = ended("run", "grid.yaml", "--dry-run")
    assert "lost does not exist" in text and "unknown" in text
    process = start(run_grid, place, "fork", said=place / "said")
    process.join(300)
    said = (place / "said").read_text("utf-8")
    assert process.exitcode == 1 and "1 of 2 runs done, 1 failed" in said
    assert "failed: Original, lost, 5 a class, seed 0: lost does not exist" in said
    assert "lost does not exist" in ended("status", "study-digits")[1]


def test_a_wrong_grid_is_one_sentence(place: Path, ended: Ended) -> None:
    (place / "grid.yaml").write_text(yaml.safe_dump({**GRID, "methods": {"A": "rifel"}}), "utf-8")
    status, _, err = ended("run", "grid.yaml")
    assert status == 2 and err.count("\n") == 1 and "did you mean rifle" in err
