"""What a run does around its steps: how many validation pictures an epoch measures, what it imports, when it draws."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.training.listener import Silent
from tests.toys import Notes, picture_folder

DRAWS = True

MANY, FEW, CLASSES = 60, 6, 2
OPTIONS: dict[str, Any] = {"model": "cifar_resnet8", "weights": "none", "epochs": 2, "lr": 0.05, "batch_size": 8, "precision": "32"}


@pytest.fixture(scope="module")
def much_validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few pictures to train on, and many to validate on."""
    root = tmp_path_factory.mktemp("much")
    picture_folder(root, {"train": FEW, "val": MANY, "test": 2})
    return root


def fitted(data: Path, out: Path, **options: Any) -> tuple[rekindle.Run, list[str]]:
    notes = Notes()
    return rekindle.fit(data, out=out, listener=notes, **OPTIONS, **options), notes.kept


def test_much_validation_does_not_slow_an_epoch_down(much_validation: Path, tmp_path: Path) -> None:
    run, notes = fitted(much_validation, tmp_path)
    said = [text for text in notes if "of the 120 validation pictures" in text]
    assert len(said) == 1 and said[0].startswith("each epoch measures 64 ")
    assert all("val" in line for line in run.history) and run.result["val"]["count"] == CLASSES * MANY


@pytest.mark.parametrize("options", [{"keep": "best"}, {"patience": 5}, {"defaults": "0.1"}], ids=str)
def test_what_chooses_by_validation_measures_all_of_it(much_validation: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    run, notes = fitted(much_validation, tmp_path, **options)
    assert not [text for text in notes if text.startswith("each epoch measures")]
    best = run.history[run.result["kept_epoch"]]["val"]["accuracy"]
    assert best == pytest.approx(run.result["val"]["accuracy"])


def test_how_much_is_measured_changes_no_weight(much_validation: Path, tmp_path: Path) -> None:
    part, whole = (fitted(much_validation, tmp_path / str(n), **options)[0] for n, options in enumerate(({}, {"patience": 5})))
    assert [line["train"] for line in part.history] == [line["train"] for line in whole.history]


def test_fabric_does_not_bring_torchmetrics() -> None:
    code = (
        "import sys; from rekindle.training.fabric import Fabric; assert 'torchmetrics' not in sys.modules; "
        "import torchmetrics; print(hasattr(torchmetrics, 'Metric'))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_the_samples_are_drawn_once_the_first_epoch_is_over(much_validation: Path, tmp_path: Path) -> None:
    drawn: list[tuple[int, bool]] = []

    class Looks(Silent):
        def step(self, epoch: int, *rest: Any) -> None:
            drawn.append((epoch, any(tmp_path.glob("*/samples.png"))))

    rekindle.fit(much_validation, out=tmp_path, listener=Looks(), **OPTIONS)
    assert {done for epoch, done in drawn if epoch == 0} == {False} and {done for epoch, done in drawn if epoch == 1} == {True}


def test_fabric_says_nothing_of_its_own() -> None:
    """What a run prints is its own; `rekindle` says which precision it took in spec.yaml."""
    code = "from rekindle.fitting.setup import launch; from rekindle.spec import RunSpec; launch(RunSpec('x', precision='bf16'), 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
