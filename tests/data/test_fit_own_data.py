"""Each kind of data from `rekindle fit` to a report and predictions."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rekindle
from rekindle import cli
from rekindle.data import open_data
from rekindle.data.cache.decode import read

from .pictures import jpeg, write

DRAWS = True

QUICK = ["--model", "tiny", "--epochs", "1", "--batch-size", "10", "--image-size", "16", "--precision", "32", "--lr", "0.01"]
FILES = ("data.json", "samples.png", "mistakes.json", "confusion.svg", "predictions.csv", "report.html", "model.safetensors")


def trained(data: Path | str, out: Path, *options: str) -> rekindle.Run:
    """Train by the command, and look at all that the run leaves."""
    assert cli.main(["fit", str(data), "--out", str(out), *QUICK, *options]) == 0
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    assert all((folder / name).stat().st_size > 0 for name in FILES)
    return rekindle.Run(folder)


def names(run: rekindle.Run) -> list[str]:
    """Pictures of predictions.csv; they are those that data.json lists."""
    with open(run.folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    files = json.loads((run.folder / "data.json").read_text("utf-8"))["files"]
    assert all(row["path"] in files[row["split"]] for row in rows)
    return [row["path"] for row in rows]


def predicts(run: rekindle.Run, picture: bytes, folder: Path) -> None:
    (folder / "new.jpg").write_bytes(picture)
    (found,) = run.predict([folder / "new.jpg"])
    assert found.classes[0] in run.result["classes"] and not found.error


@pytest.mark.parametrize("kind", [pytest.param("clothing", marks=pytest.mark.slow), "sign_digits"])
def test_folders_of_photographs(kind: str, shared: Path, tmp_path: Path) -> None:
    run = trained(shared / "data" / kind, tmp_path / "runs", "--per-class", "5", "--no-test")
    assert len(run.result["classes"]) == 10
    predicts(run, (shared / "data" / kind / names(run)[0]).read_bytes(), tmp_path)


def test_pictures_inside_parquet(shared: Path, tmp_path: Path) -> None:
    run = trained(shared / "data/cifar10", tmp_path / "runs", "--per-class", "5", "--no-test")
    assert run.result["val"]["count"] == 10 and names(run)[0].startswith("train.parquet[")
    data = open_data(shared / "data/cifar10", per_class=5)
    predicts(run, read(data.find(names(run)[0])), tmp_path)


def test_a_csv_file_with_uneven_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(tmp_path / "data/pictures", 48)
    lines = [f"pictures/{path},{'few' if number % 6 == 0 else 'many'}" for number, path in enumerate(paths)]
    (tmp_path / "data/labels.csv").write_text("\n".join(["image,label", *lines]))
    run = trained(tmp_path / "data/labels.csv", tmp_path / "runs", "--fraction", "0.9")
    note = (
        "classes are unbalanced: from 5 (few) to 23 (many) training images; --sampler balanced or --class-weights balanced evens them out."
    )
    assert note in " ".join(capsys.readouterr().err.split())
    written = json.loads((run.folder / "data.json").read_text("utf-8"))
    assert note in written["notes"] and written["imbalance"]["ratio"] == 4.6 and written["fraction"] == 0.9
    predicts(run, jpeg(3), tmp_path)
    balanced = trained(tmp_path / "data/labels.csv", tmp_path / "balanced", "--fraction", "0.9", "--sampler", "balanced")
    assert balanced.history[0]["train"] != run.history[0]["train"] and "evens them out" not in " ".join(capsys.readouterr().err.split())


def test_a_hugging_face_dataset_that_was_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is an extra: pip install 'rekindle[datasets]'")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    rows = {"image": [{"bytes": jpeg(number), "path": None} for number in range(30)], "label": [0, 1] * 15}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    run = trained(tmp_path / "saved", tmp_path / "runs")
    assert run.result["classes"] == ["zebra", "ant"] and all(name.startswith("train[") for name in names(run))
    assert run.result["test"]["count"] == 6
    predicts(run, jpeg(100), tmp_path)


def test_broken_cells_stop_a_run_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"image": [jpeg(number) for number in range(19)] + [b"broken"], "label": ["x", "y"] * 10})
    pq.write_table(table, tmp_path / "all.parquet")
    assert cli.main(["fit", str(tmp_path / "all.parquet"), "--out", str(tmp_path / "runs"), *QUICK]) == 2
    assert "all.parquet[19]: not a picture" in capsys.readouterr().err
