"""A last run on training and validation pictures together: nothing asks for a validation split."""

import json
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.errors import UserError
from rekindle.fitting.freeze_search import search_freeze
from rekindle.report.analyses import analyze
from rekindle.report.compare import compare
from rekindle.spec import RunSpec
from tests.toys import picture_folder, text_of

DRAWS = True

OPTIONS: dict[str, Any] = {"model": "cifar_resnet8", "weights": "none", "epochs": 2, "lr": 0.05, "batch_size": 8, "precision": "32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    picture_folder(root, {"train": 6, "test": 3})
    return root


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[rekindle.Run]:
    out = tmp_path_factory.mktemp("runs")
    return [rekindle.fit(folder, method="l2", out=out, val_fraction=share, **OPTIONS) for share in (0.0, 0.2)]


def test_a_run_without_validation_trains_on_all_and_is_tested(runs: list[rekindle.Run]) -> None:
    run = runs[0]
    assert all("val" not in line for line in run.history) and "val" not in run.result
    assert run.result["test"]["count"] == 6
    said = json.loads((run.folder / "data.json").read_text())
    assert said["files"].keys() == {"train", "test"} and len(said["files"]["train"]) == 12
    assert (run.folder / "curves.svg").is_file() and "validation pictures" not in (run.folder / "report.html").read_text()
    assert {line.split(",")[0] for line in (run.folder / "predictions.csv").read_text().splitlines()[1:]} == {"test"}


def test_it_is_compared_on_the_test_split(runs: list[rekindle.Run]) -> None:
    found = compare([run.folder for run in runs])
    assert [row["val"] is None for row in found.runs] == [True, False] and {row["split"] for row in found.runs} == {"test"}
    assert "Runs by accuracy on test pictures" in text_of(found)


def test_curves_ask_for_what_was_measured(runs: list[rekindle.Run]) -> None:
    with pytest.raises(UserError, match="--val-fraction"):
        analyze("learning-curves", [run.folder for run in runs])


def test_what_needs_validation_is_refused(folder: Path, tmp_path: Path) -> None:
    for wrong, flag in (({"keep": "best"}, "--keep best"), ({"patience": 2}, "--patience 2"), ({"method": "auto"}, "--method auto")):
        with pytest.raises(UserError, match=f"{flag} chooses on validation, and --val-fraction 0"):
            rekindle.fit(folder, out=tmp_path, val_fraction=0, **{**OPTIONS, **wrong})
    with pytest.raises(UserError, match="--val-fraction 0"):
        rekindle.fit(folder, out=tmp_path, val_fraction=0, test=False, **OPTIONS)
    with pytest.raises(UserError, match="--freeze auto chooses on validation, and --val-fraction 0"):
        rekindle.fit(folder, out=tmp_path, val_fraction=0, freeze="auto", **OPTIONS)
    with pytest.raises(UserError, match="--freeze auto chooses on validation"):
        search_freeze(RunSpec(str(folder), val_fraction=0.0, **OPTIONS), out=tmp_path)
    assert not list(tmp_path.rglob("result.json"))


def test_data_with_a_validation_split_of_their_own_need_no_share(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    for number, wants in enumerate(({"keep": "best", "patience": 2}, {"method": "auto", "model": "tiny", "weights": "default"})):
        run = rekindle.fit(data, out=tmp_path / str(number), val_fraction=0, **{**OPTIONS, **wants})
        assert run.result["val"]["count"] == 4
