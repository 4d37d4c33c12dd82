"""Cross-validation: ordinary runs, each picture predicted once by one that has not seen it, and the same after a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import rekindle
from rekindle import models
from rekindle.cli import main
from rekindle.data import open_data
from rekindle.data.formats.outputs import is_output
from rekindle.errors import UserError
from rekindle.files import read_csv
from rekindle.fitting.held_out import held_out
from rekindle.records import read_predictions
from rekindle.report.statistics import over_folds
from rekindle.training.trainer import Training
from tests.faults.equal_runs import assert_equal_runs, without_timing
from tests.faults.stops import stopped_at
from tests.toys import picture_folder

FOLDS = 3


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Pictures in given splits, one of whose names a spreadsheet would take for a formula."""
    root = tmp_path_factory.mktemp("folds")
    picture_folder(root / "data", {"train": 5, "val": 2, "test": 2}, size=32)
    (root / "data/train/class0/000.png").rename(root / "data/train/class0/=1+1.png")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(models.build("tiny", weights="none").module.state_dict(), root / "weights.safetensors")
    return {"data": str(root / "data"), "model": "tiny", "weights": str(root / "weights.safetensors"), "image_size": 32, "epochs": 2, "lr": 0.02,
            "batch_size": 8, "precision": "32"}  # fmt: skip


@pytest.fixture(scope="module")
def whole(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> rekindle.CrossValidation:
    return rekindle.fit(**options, folds=FOLDS, out=tmp_path_factory.mktemp("whole"))


def test_each_picture_is_predicted_once_by_a_run_that_has_not_seen_it(whole: rekindle.CrossValidation, options: dict[str, Any]) -> None:
    rows = read_csv(whole.folder / "predictions.csv")
    data = Path(options["data"])
    names = sorted(path.relative_to(data).as_posix() for split in ("train", "val") for path in (data / split).rglob("*.png"))
    assert sorted(row["path"] for row in rows) == names
    for row in rows:
        files = json.loads((whole.runs[int(row["fold"]) - 1].folder / "data.json").read_text())["files"]
        assert row["path"] in files["val"] and row["path"] not in files["train"]
        assert not any(name.startswith("test/") for name in files["train"]) and len(files["test"]) == 4
    assert "'=1+1.png" not in names and len(read_predictions(whole.folder, "val")) == 14


def test_every_picture_is_judged_by_networks_that_have_not_seen_it(whole: rekindle.CrossValidation, options: dict[str, Any]) -> None:
    dataset = open_data(options["data"], seed=0)
    places, probabilities = held_out(whole.folder, dataset)
    names = [dataset.relative(path) for split in dataset.splits.values() for path in split.paths]
    assert places.tolist() == list(range(len(names))) and torch.allclose(probabilities.sum(1), torch.ones(len(names)).double(), atol=1e-5)
    row = next(row for row in read_csv(whole.folder / "predictions.csv") if row["path"].endswith("=1+1.png"))
    assert probabilities[names.index(row["path"])].tolist() == [float(row["p_class0"]), float(row["p_class1"])]
    last = names.index("test/class1/001.png")
    said = [float(row["p_class1"]) for run in whole.runs for row in read_csv(run.folder / "predictions.csv") if row["path"] == names[last]]
    assert len(said) == FOLDS and float(probabilities[last, 1]) == pytest.approx(sum(said) / FOLDS)


def test_the_summary_is_that_of_the_runs(whole: rekindle.CrossValidation) -> None:
    result, held = whole.result, [run.result["val"] for run in whole.runs]
    assert [row["run"] for row in result["runs"]] == [run.folder.name for run in whole.runs]
    assert result["val"] == json.loads(json.dumps(over_folds([one["accuracy"] for one in held])))
    assert result["test"]["mean"] == pytest.approx(sum(run.result["test"]["accuracy"] for run in whole.runs) / FOLDS)
    rows = read_csv(whole.folder / "predictions.csv")
    assert result["pictures"]["count"] == 14 == len(rows)
    assert result["pictures"]["accuracy"] == pytest.approx(sum(row["correct"] == "1" for row in rows) / 14)
    for row in (0, 1):
        for column in (0, 1):
            assert result["pictures"]["confusion"][row][column] == sum(one["confusion"][row][column] for one in held)
    assert result["cautions"] == [] and is_output(whole.folder)


def test_a_fold_is_an_ordinary_run(whole: rekindle.CrossValidation, options: dict[str, Any]) -> None:
    again = rekindle.fit(**options, fold="2/3", out=whole.folder)
    assert again.folder == whole.runs[1].folder
    assert again.predict(options["data"])[0].classes


def test_a_stopped_fold_goes_on_to_the_bit(
    whole: rekindle.CrossValidation,
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the last fold; those before it are not trained again, and the data may have moved meanwhile."""
    begun: set[Path] = set()

    def is_last(training: Training) -> bool:
        begun.add(training.folder)
        return len(begun) == FOLDS

    data = tmp_path / "data"
    Path(options["data"]).rename(data)
    try:
        with stopped_at(1, 0, when=is_last) as stop:
            rekindle.fit(**{**options, "data": str(data)}, folds=FOLDS, out=tmp_path / "runs")
        folder = stop.folder
        assert folder.parent == tmp_path / "runs" and "val" not in json.loads((folder / "folds.json").read_text())
    finally:
        data.rename(options["data"])
    done = [path for path in folder.glob("*/result.json")]
    stamps = {path: path.stat().st_mtime_ns for path in done}
    assert len(done) == FOLDS - 1
    assert main(["fit", options["data"], "--resume", str(folder), "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == stamps
    again = json.loads(capsys.readouterr().out)
    one, other = without_timing({**again, "data": "", "run": ""}), without_timing({**whole.result, "data": "", "run": ""})
    assert one == json.loads(json.dumps(other))
    assert (folder / "predictions.csv").read_text() == (whole.folder / "predictions.csv").read_text()
    for run in whole.runs:
        assert_equal_runs_of_moved_data(folder / run.folder.name, run.folder)


def assert_equal_runs_of_moved_data(one: Path, other: Path) -> None:
    for folder in (one, other):
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**result, "data": ""}))
    assert_equal_runs(one, other, 2)


def test_groups_are_held_out_whole(options: dict[str, Any], tmp_path: Path) -> None:
    found = rekindle.fit(**{**options, "epochs": 1}, folds=2, group_pattern=r"(\d)\.png", keep="best", out=tmp_path)
    folds = {(row["path"][-5], row["fold"]) for row in read_csv(found.folder / "predictions.csv")}
    assert len({digit for digit, _ in folds}) == len(folds)
    assert found.result["pictures"]["interval"] is None
    assert "--keep best chose the epoch by the pictures that were held out" in found.result["cautions"][0]


def test_the_terminal(whole: rekindle.CrossValidation, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--resume", str(whole.folder)]) == 0
    told = capsys.readouterr().out
    assert f"validation accuracy {100 * whole.result['val']['mean']:.1f} % on average" in told
    assert "each of 14 pictures was held out once" in told and str(whole.folder / "predictions.csv") in told


@pytest.mark.parametrize(
    ("given", "told"), [({"folds": 1}, "--folds must be .* of at least 2"), ({"folds": 3, "fold": "1/3"}, "--fold 1/3 one of them"), ({"folds": 4}, "has 3 folds"), ({"folds": 20}, "20 folds need at least as many pictures, and there are 14"), ({"folds": 2, "model": "tinny"}, "tinny")]
)  # fmt: skip
def test_what_is_refused(
    given: dict[str, Any], told: str, whole: rekindle.CrossValidation, options: dict[str, Any], tmp_path: Path
) -> None:
    place = {"resume": whole.folder} if given == {"folds": 4} else {**options, "out": tmp_path}
    with pytest.raises(UserError, match=told):
        rekindle.fit(**{**place, **given})
    assert not any(tmp_path.iterdir()), "nothing is left of what never began"
    with pytest.raises(UserError, match="has no folds"):
        rekindle.fit(resume=whole.runs[0].folder, folds=3)


def test_the_interval_is_wider_than_that_of_independent_measurements() -> None:
    from scipy import stats

    values = [0.8, 0.9, 0.85, 0.8, 0.9]
    plain = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    low, high = over_folds(values)["interval"]
    assert (high - low) / (plain.high - plain.low) == pytest.approx((1 + 5 / 4) ** 0.5)
    assert over_folds([0.5, 0.5])["interval"] is None
