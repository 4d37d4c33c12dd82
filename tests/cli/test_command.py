"""The command as a person uses it: a run from end to end, and what it says to each mistake."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

import rekindle
from rekindle.cli import main
from rekindle.cli.fit import GROUPS
from rekindle.files import read_csv
from rekindle.report import cards
from rekindle.report.cards import read_cards
from rekindle.report.run_pictures import PICTURES
from rekindle.spec import RunSpec, hints
from tests.toys import picture_folder

FAST = ["--model", "cifar_resnet8", "--weights", "none", "--epochs", "2", "--lr", "0.05", "--batch-size", "8", "--precision", "32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"": 12}, classes=3)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    assert main(["fit", str(folder), *FAST, "--method", "l2+rifle(periods=2)", "--out", str(out)]) == 0
    [made] = out.iterdir()
    return made


def test_the_folder_explains_itself(run: Path) -> None:
    expected = {
        "spec.yaml", "environment.json", "data.json", "metrics.jsonl", "curves.svg", "confusion.svg", "reliability.svg", "samples.png", "mistakes.json",
        "report.html", "model.safetensors", "familiarity.safetensors", "model.json", "predictions.csv", "result.json",
    }  # fmt: skip
    assert {path.name for path in run.iterdir()} - {".lock"} == expected
    page = (run / "report.html").read_text("utf-8")
    assert "http://" not in page and "https://" not in page and page.count("data:image/") >= len(PICTURES) > page.count("data:image/png")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["restarted"] for line in lines] == [False, True]
    result = json.loads((run / "result.json").read_text())
    assert sum(row["support"] for row in result["test"]["per_class"]) == result["test"]["count"] == 6
    assert sum(map(sum, result["test"]["confusion"])) == 6


def test_predict_csv_json_and_broken_files(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    shutil.copy(next((folder / "class0").iterdir()), tmp_path / "good.png")
    assert main(["predict", str(run), str(tmp_path), "--top-k", "2"]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert [bool(row["error"]) for row in rows] == [True, False]
    assert rows[1]["class_1"].startswith("class") and float(rows[1]["confidence_1"]) >= float(rows[1]["confidence_2"])
    assert "1 of 2 files could not be classified" in captured.err
    assert main(["predict", str(run), str(tmp_path / "good.png"), "--json", "--out", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())[0]["classes"][0] == rows[1]["class_1"]
    assert main(["predict", str(run), str(tmp_path / "broken.png")]) == 1


def test_predictions_are_those_of_the_run(run: Path, folder: Path) -> None:
    stored = [row for row in csv.DictReader((run / "predictions.csv").open()) if row["split"] == "test"]
    found = rekindle.Run(run).predict([folder / row["path"] for row in stored])
    for row, prediction in zip(stored, found, strict=True):
        assert prediction.classes == [row["prediction"]]
        assert prediction.confidences[0] == pytest.approx(float(row["confidence"]), abs=1e-4)


def test_evaluate(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 36
    assert main(["evaluate", str(run), str(folder.parent / "nowhere")]) == 2


def test_evaluate_takes_what_fit_takes(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table is measured as the folder it was made from, and of data with splits the test split."""
    paths = sorted(folder.rglob("*.png"))
    (tmp_path / "all.csv").write_text("image,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths), "utf-8")
    table, plain = (rekindle.Run(run).evaluate(data) for data in (tmp_path / "all.csv", folder))
    assert table["confusion"] == plain["confusion"] and table["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    for number, path in enumerate(paths):
        kept = tmp_path / "divided" / ("train" if number % 2 else "test") / path.parent.name / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, kept)
    assert rekindle.Run(run).evaluate(tmp_path / "divided")["count"] == (len(paths) + 1) // 2
    (tmp_path / "other.csv").write_text(f"image,label\n{paths[0]},cat\n{paths[1]},dog\n", "utf-8")
    (tmp_path / "one" / "zebra").mkdir(parents=True)
    shutil.copy(paths[0], tmp_path / "one" / "zebra")
    assert main(["evaluate", str(run), str(tmp_path / "one")]) == 2
    assert "has the classes zebra, which the run does not know; its classes are" in capsys.readouterr().err
    assert main(["evaluate", str(run), str(tmp_path / "other.csv")]) == 2
    assert "has the classes cat, dog, which the run does not know; its classes are" in capsys.readouterr().err


def test_compare(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = rekindle.fit(
        str(folder), model="cifar_resnet8", weights="none", epochs=2, lr=0.05, batch_size=8, precision="32", method="l2", out=tmp_path
    )
    capsys.readouterr()
    assert main(["compare", str(run), str(other.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    pictures = found["pictures"]
    parts = ("both_right", "both_wrong", "only_first_right", "only_second_right")
    assert sum(pictures[part] for part in parts) == pictures["count"] == 6
    assert found["pairs"][0]["difference"] == pytest.approx(pictures["difference"])
    assert main(["compare", str(run)]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "{no}"], "nowhere does not exist"),
        (["fit"], "name the folder with photographs"),
        (["fit", "{data}", "--model", "resnett50"], "did you mean resnet50"),
        (["fit", "{data}", "--model", "cifar_resnet20"], "give --weights FILE.safetensors"),
        (["fit", "{data}", *FAST, "--method", "l2+riffle"], "there is no method 'riffle'; did you mean rifle?"),
        (["fit", "{data}", *FAST, "--method", "rifle(periods=3)"], "periods must be at most the 2 epochs of the run, found 3"),
        (["fit", "{data}", *FAST, "--method", "l2_sp"], "shares no parameter with its source"),
        (["fit", "{data}", *FAST, "--optimizer", "SDG"], "it has ASGD, Adadelta"),
        (["fit", "{data}", *FAST, "--per-class", "50"], "--per-class 50 asks for 60 with those for validation; use at most"),
        (["fit", "{data}", *FAST, "--head", "fc"], "candidates are linear, conv1"),
        (["fit", "{data}", *FAST, "--label-smoothing", "1.5"], "below 1, found 1.5"),
        (["fit", "{data}", *FAST, "--val-fraction", "1"], "below 1, found 1"),
        (["fit", "{data}", "--model", "cifar_resnet8", "--weights", "{no}.pth"], "there is no weights file"),
        (["fit", "--resume", "{no}"], "is no run folder"),
        (["fit", "{data}", "--epoch", "3"], "--epoch; did you mean --epochs?"),
        (["fit", "{data}", "--freez=auto"], "did you mean --freeze?"),
        (["fit", "{data}", "--device", "tpu"], "auto, cpu, cuda, mps, found 'tpu'"),
        (["fit", "{data}", "--config", "{no}.yaml"], "there is no file"),
        (["fit", "{data}", *FAST, "--lr", "0"], "above 0 and at most 1e+38 or auto, found 0.0"),
        (["data", "list", "--jsn"], "did you mean --json?"),
        (["predict", "{no}", "x.jpg"], "there is no run folder"),
        (["models", "zzz"], "no network matches"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    arguments: list[str], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(no=tmp_path / "nowhere", data=folder) for text in arguments]
    if filled[0] == "fit":
        filled += ["--out", str(tmp_path / "runs")]
    assert main(filled) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert not list((tmp_path / "runs").glob("*/result.json"))


def test_a_failed_start_leaves_no_result_and_can_be_started_again(folder: Path, tmp_path: Path) -> None:
    assert main(["fit", str(folder), *FAST[:-2], "--lr", "1e12", "--clip-norm", "none", "--out", str(tmp_path)]) == 2
    assert not list(tmp_path.glob("*/result.json"))


def test_squeezenet_on_real_photographs(shared: Path, tmp_path: Path) -> None:
    """Ten epochs on ten photographs a class beat chance by far, and the pictures of the run can be opened."""
    threads = torch.get_num_threads()
    weights = shared / "weights" / "squeezenet1_0-imagenet.safetensors"
    options: dict[str, Any] = {"image_size": 64, "per_class": 10, "epochs": 10, "lr": 0.001, "method": "l2_sp"}
    run = rekindle.fit(shared / "data" / "clothing", model="torchvision:squeezenet1_0", weights=str(weights), out=tmp_path, **options)
    assert run.result["test"]["accuracy"] > 0.25
    assert torch.get_num_threads() == threads
    for name in ("curves", "confusion", "reliability"):
        assert ElementTree.parse(run.folder / f"{name}.svg").getroot().tag.endswith("svg")
    assert len(read_cards(run.folder / "mistakes.json")) == cards.WORST
    with Image.open(run.folder / "samples.png") as picture:
        assert min(picture.size) > 100


def test_a_config_file_holds_options_and_those_typed_come_before_it(run: Path, folder: Path, tmp_path: Path) -> None:
    """A run's own spec.yaml makes the run again; a typed option comes before the file's."""
    assert main(["fit", "--config", str(run / "spec.yaml"), "--out", str(tmp_path / "again"), "--device", "cpu"]) == 0
    [again] = (tmp_path / "again").iterdir()
    assert again.name == run.name and (again / "predictions.csv").read_text() == (run / "predictions.csv").read_text()
    assert (
        main(["fit", str(folder), "--config", str(run / "spec.yaml"), "--seed", "4", "--epochs", "2", "--out", str(tmp_path / "other")])
        == 0
    )
    [other] = (tmp_path / "other").iterdir()
    assert rekindle.Run(other).result["seed"] == 4 and rekindle.Run(other).result["method"] == "l2+rifle(periods=2)"


def test_every_option_stands_in_a_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(hints(RunSpec).keys() - {"data"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(folder), *FAST, "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "--device cuda" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_predict_accounts_for_every_file_of_a_folder(run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has a row, or is counted with the reason; a run folder, a hidden file and a text are no pictures."""
    good = next((folder / "class0").iterdir())
    readable = ["A.PNG", "b.jpe", "download", "c.jpg_large", "deep/d.img", "=e.png", "ü.png"]
    broken = {
        "f.HEIC": b"\0\0\0\x18ftypheic",
        "g.mp4": b"\0\0\0\x18ftypisom",
        "h.jpg": b"",
        "i.zip": b"PK\3\4",
        "j.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }
    for name in readable:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(good, tmp_path / name)
    for name, data in broken.items():
        (tmp_path / name).write_bytes(data)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db", "labels.csv"):
        (tmp_path / name).touch()
    shutil.copytree(run, tmp_path / "runs" / run.name)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(good.read_bytes())
    assert main(["predict", str(run), str(tmp_path), "--out", str(tmp_path / "out.csv")]) == 0
    captured = capsys.readouterr()
    rows = {Path(row["path"]).name: row["error"] for row in read_csv(tmp_path / "out.csv")}
    assert {name for name, error in rows.items() if not error} == {*(Path(name).name for name in readable), "\\udcff.png"}
    assert {name for name, error in rows.items() if error} == {*broken, "pipe.png", "zero.png"}
    assert "HEIC" in rows["f.HEIC"] and "ordinary" in rows["pipe.png"]
    for parts in (("documents", "2"), ("hidden", "2", "Thumbs.db"), ("written by rekindle", "1", "runs")):
        assert any(all(part in line for part in parts) for line in captured.err.splitlines()), parts
    assert main(["predict", str(run), str(tmp_path / "f.HEIC"), str(tmp_path / "pipe.png")]) == 1
    assert main(["predict", str(run), str(tmp_path / "runs")]) == 2
    assert "written by rekindle" in capsys.readouterr().err


def test_work_inside_the_data_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default --out puts runs/ beside the classes; later commands see the same data."""
    shutil.copytree(folder, tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")
    for seed in ("0", "1"):
        assert main(["fit", ".", *FAST, "--seed", seed]) == 0
    runs = sorted(Path("runs").iterdir())
    assert [json.loads((run / "data.json").read_text())["classes"] for run in runs] == [["class0", "class1", "class2"]] * 2
    assert main(["data", "check", "."]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(runs[0]), ".", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 36
    assert len(rekindle.Run(runs[0]).predict(".")) == 36
