"""Runs of one process on the same pictures and weights look at them once, and come out as they would alone."""

from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.fitting import job, shared
from tests.training.test_trainer import settings


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    shared._seen.clear()
    return {**settings(tmp_path), "head_init": "linear_probe", "batchnorm": "auto", "method": "l2", "epochs": 1, "clip_norm": 1.0}


def untimed(run: rekindle.Run) -> tuple[Any, Any]:
    lines = [{name: value for name, value in line.items() if name != "timing"} for line in run.history]
    return lines, {name: value for name, value in run.result.items() if name != "timing"}


def test_the_second_run_looks_at_nothing_and_ends_the_same(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = rekindle.fit(**{**options, "method": "l2_sp"}, out=tmp_path / "alone")
    shared._seen.clear()
    rekindle.fit(**{**options, "method": "l2"}, out=tmp_path / "first")
    for name in ("look_at", "batchnorm_for"):
        monkeypatch.setattr(job, name, lambda *_, name=name: pytest.fail(name))
    assert untimed(rekindle.fit(**{**options, "method": "l2_sp"}, out=tmp_path / "second")) == untimed(alone)


@pytest.mark.parametrize("changed", [{"seed": 6}, {"image_size": 24}, {"per_class": 4}])
def test_other_pictures_are_looked_at_anew(
    changed: dict[str, Any], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rekindle.fit(**options, out=tmp_path / "first")
    looks = []
    monkeypatch.setattr(job, "look_at", lambda *given, look_at=job.look_at: looks.append(given) or look_at(*given))
    rekindle.fit(**{**options, **changed}, out=tmp_path / "second")
    assert len(looks) == 1


def test_few_looks_are_kept() -> None:
    shared._seen.clear()
    for number in range(10):
        shared.remember(str(number), shared.Shared(look=object()))  # type: ignore[arg-type]
    assert list(shared._seen) == ["6", "7", "8", "9"] and shared.recall("0").look is None
