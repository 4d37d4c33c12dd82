"""What the page for contributors says is true: its paths exist, and a recorder and a task are there by being there."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rekindle
from rekindle import analysis
from rekindle.analysis import recorders
from rekindle.data import tasks
from rekindle.data.tasks import benchmarks
from tests.toys import picture_folder

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TASK = """
from rekindle.data.tasks.task import Layout, Task, TaskFile

TOYS = Task("toys", "Toys", "nobody", "https://example.org", "none", (TaskFile("toys.zip", ()),), lambda folder: Layout([], {}), 2, {"train": 4}, "ours")
"""


def test_every_path_in_code_marks_exists() -> None:
    paths = re.findall(r"`([\w./]+(?:/|\.py|\.pyi|\.cff|\.toml|\.yml))`", PAGE)
    assert len(paths) > 20
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "src/rekindle" / path).exists() or (ROOT / "src/rekindle/data" / path).exists(), path


@pytest.fixture
def _one_more_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "head_norm.py").write_text(code)
    monkeypatch.setattr(analysis, "__path__", [*analysis.__path__, str(tmp_path)])
    recorders.kinds.cache_clear()
    yield
    recorders.kinds.cache_clear()
    sys.modules.pop("rekindle.analysis.head_norm", None)


@pytest.mark.usefixtures("_one_more_recorder")
def test_a_recorder_is_one_file(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    run = rekindle.fit(
        data, model="cifar_resnet8", weights="none", epochs=2, lr=0.01, batch_size=4, record="head_norm", out=tmp_path / "runs"
    )
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["analysis"]["head_norm"]["norm"] > 0 for line in lines)


def test_a_task_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toys.py").write_text(TASK)
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path)])
    try:
        assert importlib.reload(tasks).find("toys").title == "Toys"
    finally:
        monkeypatch.undo()
        importlib.reload(tasks)
        sys.modules.pop("rekindle.data.tasks.benchmarks.toys", None)
