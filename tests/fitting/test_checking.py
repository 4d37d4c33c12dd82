"""How many validation pictures an epoch measures, and what that changes."""

from pathlib import Path
from typing import Any

import pytest

import rekindle
from tests.toys import Notes, picture_folder

MANY, FEW, CLASSES = 40, 6, 2
OPTIONS: dict[str, Any] = {
    "model": "tiny", "weights": "none", "epochs": 2, "lr": 0.05, "image_size": 16, "batch_size": 8, "precision": "32",
}  # fmt: skip


@pytest.fixture(scope="module")
def much_validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few pictures to train on, and many to validate on."""
    root = tmp_path_factory.mktemp("much")
    picture_folder(root, {"train": FEW, "val": MANY, "test": 2})
    return root


def fitted(data: Path, out: Path, **options: Any) -> tuple[rekindle.Run, list[str]]:
    notes = Notes()
    return rekindle.fit(data, out=out, listener=notes, **OPTIONS, **options), notes.kept


@pytest.fixture(scope="module")
def plain(much_validation: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[rekindle.Run, list[str]]:
    """A run without options, and what it noted."""
    return fitted(much_validation, tmp_path_factory.mktemp("plain"))


def test_much_validation_does_not_slow_an_epoch_down(plain: tuple[rekindle.Run, list[str]]) -> None:
    run, notes = plain
    said = [text for text in notes if "of the 80 validation pictures" in text]
    assert len(said) == 1 and said[0].startswith("each epoch measures 64 ")
    assert all("val" in line for line in run.history) and run.result["val"]["count"] == CLASSES * MANY


@pytest.mark.parametrize("options", [{"keep": "best"}, {"patience": 5}, {"defaults": "0.1"}], ids=str)
def test_what_chooses_by_validation_measures_all_of_it(much_validation: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    run, notes = fitted(much_validation, tmp_path, **options)
    assert not [text for text in notes if text.startswith("each epoch measures")]
    best = run.history[run.result["kept_epoch"]]["val"]["accuracy"]
    assert best == pytest.approx(run.result["val"]["accuracy"])


def test_how_much_is_measured_changes_no_weight(plain: tuple[rekindle.Run, list[str]], much_validation: Path, tmp_path: Path) -> None:
    part, whole = plain[0], fitted(much_validation, tmp_path, patience=5)[0]
    assert [line["train"] for line in part.history] == [line["train"] for line in whole.history]
