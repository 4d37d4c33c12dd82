"""The forecast of a study counts start, reading, looking, training, and the end of each run."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rekindle.data.samples import Preprocessing
from rekindle.fitting.workload import EVALUATION, UNDRAWN, Workload
from rekindle.spec import RunSpec
from rekindle.study import cost
from rekindle.study.grid_file import from_dict
from rekindle.study.store import Study
from tests.study import fakes

SPEED, READ = 50.0, 0.02
TRAIN, VAL, TEST = 2 * 6, 2 * 40, 2 * 10


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of known speed, and reading that takes `READ` seconds a picture."""
    now = [0.0]

    def load(paths: list[Any], *_: Any, **__: Any) -> None:
        now[0] += READ * len(paths)

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(cost, "_measured", lambda spec, threads: (SPEED, Preprocessing(32, (0, 0, 0), (1, 1, 1))))
    monkeypatch.setattr("rekindle.data.Pixels.load", load)


def study_of(folder: Path, **base: Any) -> Study:
    for split, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        for name in ("a", "b"):
            (folder / "photos" / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count // 2):
                Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / "photos" / split / name / f"{number}.png")
    methods = {"Original": "l2", "RIFLE": "l2+rifle(periods=2)"}
    grid = {**copy.deepcopy(fakes.GRID), "sizes": [0], "tasks": {"photos": {"data": str(folder / "photos")}}, "methods": methods}
    grid = {**grid, "regularizers": {"L2": "l2"}, "base": {"model": "cifar_resnet8", "epochs": 3, **base}}
    return Study.create(folder / "study", from_dict(grid))


def test_a_cell_costs_the_sum_of_its_parts_and_reading_once(tmp_path: Path, clock: None) -> None:
    study = study_of(tmp_path)
    first, *others = study.cells()
    forecast = cost.Cost(study)
    looked = EVALUATION * TRAIN / SPEED
    checked, ended = 64, 2 * (VAL + TEST)  # Of 80 validation pictures, 64 are measured after each epoch.
    trained = 3 * (TRAIN + EVALUATION * checked) / SPEED
    whole = cost.STARTING + looked + trained + UNDRAWN + EVALUATION * ended / SPEED
    pictures = TRAIN + VAL + TEST
    assert forecast.of(first) == pytest.approx(whole + READ * pictures)
    assert [forecast.of(cell) for cell in others] == pytest.approx([whole] * len(others))


def test_a_finished_cell_tells_more_than_a_trial(tmp_path: Path, clock: None) -> None:
    study = study_of(tmp_path)
    done = study.cells()[0]
    study.begin(done)
    study.finish(done, fakes.answer(done, study.runs, None))
    seconds = study.result(done)["timing"]
    forecast = cost.Cost(study)
    assert {forecast.of(cell) for cell in study.cells()} == {max(seconds["seconds"], seconds.get("wall_seconds", 0.0))}


@pytest.mark.parametrize(
    ("said", "checked"), [({}, 64), ({"keep": "best"}, VAL), ({"patience": 2}, VAL), ({"test_every_epoch": True}, 64 + TEST)]
)
def test_what_is_measured_after_each_epoch_counts(said: dict[str, Any], checked: int) -> None:
    work = Workload.of(RunSpec(data="x", **said), {"train": TRAIN, "val": VAL, "test": TEST})
    assert (work.train, work.checked, work.measured, work.known) == (TRAIN, checked, VAL + TEST, TRAIN + VAL)
    assert Workload.of(RunSpec(data="x", test=False), {"train": TRAIN, "test": TEST}).measured == 0


def test_an_error_without_a_message_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(spec: RunSpec, threads: int) -> None:
        raise AssertionError

    monkeypatch.setattr(cost, "_measured", broken)
    forecast = cost.Cost(study_of(tmp_path))
    assert forecast.of(study_of(tmp_path).cells()[0]) is None
    assert forecast.notes == ["Original on cifar_resnet8: AssertionError."]


def test_pictures_that_a_method_holds_out_are_not_trained_on(tmp_path: Path, clock: None) -> None:
    study = study_of(tmp_path)
    forecast = cost.Cost(study)
    plain, holding = (replace(cell, spec=replace(cell.spec, method=method)) for cell in study.cells()[:1] for method in ("l2", "l2+tpgm"))
    forecast.of(plain)  # It reads the pictures, once.
    held = 2  # Not looked at before training, nor trained on in three epochs.
    saved = (EVALUATION * held + 3 * held) / SPEED
    assert (forecast.of(plain) or 0.0) - (forecast.of(holding) or 0.0) == pytest.approx(saved)


def test_a_trial_freezes_what_the_run_freezes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec("x", model="cifar_resnet8", image_size=32, batch_size=8)

    def trained(spec: RunSpec) -> int:
        model = cost._trial(spec, torch.device("cpu"))[0].model
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    whole, frozen = trained(spec), trained(replace(spec, freeze="layer2"))
    assert 0 < frozen < whole and trained(replace(spec, freeze="auto")) == whole
    asked: list[str | None] = []

    def measured(spec: RunSpec, threads: int) -> tuple[float, Preprocessing]:
        asked.append(spec.freeze)
        return SPEED, Preprocessing(32, (0, 0, 0), (1, 1, 1))

    monkeypatch.setattr(cost, "_measured", measured)
    study = study_of(tmp_path)
    forecast, cell = cost.Cost(study), study.cells()[0]
    for freeze in (None, "layer2", None):
        forecast.of(replace(cell, spec=replace(cell.spec, freeze=freeze)))
    assert asked == [None, "layer2"]
