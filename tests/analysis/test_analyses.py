"""The commands that look into finished runs: their numbers are the runs', their sentences say what is missing."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rekindle
from rekindle import models
from rekindle.cli import main
from rekindle.report.analyses import ANALYSES, analyze, fall_and_jumps, run_labels
from tests.toys import picture_folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("analyses")
    picture_folder(root / "data", {"train": 8, "val": 3, "test": 4})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(models.build("cifar_resnet8", weights="none").module.state_dict(), root / "weights.safetensors")
    return {"data": str(root / "data"), "model": "cifar_resnet8", "weights": str(root / "weights.safetensors"), "epochs": 6, "lr": 0.02,
            "batch_size": 8, "precision": "32", "out": str(root / "runs")}  # fmt: skip


@pytest.fixture(scope="module")
def runs(options: dict[str, Any]) -> list[rekindle.Run]:
    every = {"record": "gradient_norms,weight_distance", "test_every_epoch": True}
    return [rekindle.fit(**options, **every, method=method) for method in ("l2", "l2+rifle_a(periods=2)")]


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_fall_and_jumps_by_hand() -> None:
    assert fall_and_jumps([8.0, 4.0, 2.0, 6.0, 3.0, 1.0], [3]) == (pytest.approx(0.25), [pytest.approx(3.0)])
    assert fall_and_jumps([2.0], []) == (1.0, [])
    assert fall_and_jumps([2.0, 0.0, 1.0], [2])[1] == [float("inf")]


def test_gradient_norms_are_those_recorded(runs: list[rekindle.Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(run.folder) for run in runs]
    assert main(["analyze", "gradient-norms", *folders, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    lines = table(tmp_path / "gradient_norms.csv")
    assert len(lines) == 2 * 6 * 3 and (tmp_path / "gradient_norms.png").stat().st_size > 10_000
    line = next(
        line for line in lines if line["run"] == "l2+rifle_a(periods=2)" and line["epoch"] == "4" and line["layer"] == "layer2.0.conv2"
    )
    assert float(line["first"]) == runs[1].history[3]["analysis"]["gradient_norms"]["layer2.0.conv2"]["first"]
    assert line["restarted"] == "1" and sum(int(line["restarted"]) for line in lines) == 3
    before, after = (runs[1].history[epoch]["analysis"]["gradient_norms"]["layer3.0.conv2"]["mean"] for epoch in (2, 3))
    assert f"{after / before:.2g}" in printed and "jumps: norm" in printed


def test_learning_curves_use_the_watched_test_split_where_all_have_it(runs: list[rekindle.Run], options: dict[str, Any]) -> None:
    both = analyze("learning-curves", [run.folder for run in runs])
    assert [line["watched_test_accuracy"] for line in both.values[:6]] == [line["watched_test"]["accuracy"] for line in runs[0].history]
    assert "no result" in both.notes[0] and both.header[2] == "test, last epoch"
    plain = rekindle.fit(**options, method="none")
    mixed = analyze("learning-curves", [runs[0].folder, plain.folder])
    assert "val_accuracy" in mixed.values[0] and mixed.header[2] == "validation, last epoch"


def test_travel_after_the_run_is_the_travel_recorded_in_it(runs: list[rekindle.Run]) -> None:
    found = analyze("weight-distance", [run.folder for run in runs])
    for run, label in zip(runs, run_labels(runs), strict=True):
        recorded = run.history[-1]["analysis"]["weight_distance"]
        mine = {line["layer"]: line for line in found.values if line["run"] == label}
        assert mine.keys() == recorded.keys()
        for layer, moved in recorded.items():
            assert mine[layer]["distance"] == pytest.approx(moved["distance"]) and mine[layer]["norm"] == pytest.approx(moved["norm"])
    assert found.header == ["run", "stem", "layer1", "layer2", "layer3", "all"]


def test_one_run_gets_the_picture_in_its_own_folder(runs: list[rekindle.Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "weight-distance", str(runs[0].folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["layer"] == "conv1"
    assert (runs[0].folder / "weight_distance.png").is_file() and (runs[0].folder / "weight_distance.csv").is_file()


def test_a_network_that_a_method_rebuilt_is_compared_where_it_is_the_same(options: dict[str, Any]) -> None:
    """DropConnect keeps the names; the new head is no layer of the source, whatever it is called."""
    run = rekindle.fit(**{**options, "epochs": 1}, method="l2+dropconnect(p=0.2)")
    found = analyze("weight-distance", [run.folder])
    start, end = load_file(options["weights"]), load_file(run.folder / "model.safetensors")
    [line] = [line for line in found.values if line["layer"] == "layer1.0.conv1"]
    assert line["distance"] == pytest.approx(float((end["layer1.0.conv1.weight"] - start["layer1.0.conv1.weight"]).norm()), rel=1e-5)
    assert not any(line["layer"].startswith("linear") for line in found.values)


def test_labels_tell_runs_apart(runs: list[rekindle.Run], options: dict[str, Any]) -> None:
    other = rekindle.fit(**options, method="l2", seed=7, record="gradient_norms,weight_distance", test_every_epoch=True)
    assert run_labels(runs) == ["l2", "l2+rifle_a(periods=2)"]
    assert run_labels([runs[0], other]) == ["l2, seed 0", "l2, seed 7"]
    twin = rekindle.fit(**{**options, "lr": 0.01}, method="l2")
    assert run_labels([runs[0], twin]) == [runs[0].folder.name, twin.folder.name]


@pytest.mark.parametrize("kind", ANALYSES)
def test_what_is_missing_is_one_sentence(kind: str, runs: list[rekindle.Run], options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(rekindle.UserError, match="no run folder"):
        analyze(kind, [tmp_path / "absent"])
    with pytest.raises(rekindle.UserError, match="named twice"):
        analyze(kind, [runs[0].folder, runs[0].folder])
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs[0].folder, unfinished)
    (unfinished / "result.json").unlink()
    with pytest.raises(rekindle.UserError, match="has not finished"):
        analyze(kind, [unfinished])


def test_a_run_that_cannot_tell_says_what_to_type(options: dict[str, Any]) -> None:
    plain = rekindle.fit(**{**options, "weights": "none", "epochs": 1}, method="none")
    with pytest.raises(rekindle.UserError, match="--record gradient_norms"):
        analyze("gradient-norms", [plain.folder])
    with pytest.raises(rekindle.UserError, match="random weights"):
        analyze("weight-distance", [plain.folder])
