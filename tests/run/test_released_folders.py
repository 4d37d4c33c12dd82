"""A run folder that rekindle 0.1.0 wrote opens, predicts and goes on as it did then."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rekindle
from rekindle.cli import main
from rekindle.records import METRICS

RELEASED = Path(__file__).resolve().parents[1] / "fixtures/run_0_1_0"
CLOSE = 2e-3  # Other processors add in another order.


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run, copied; its spec names data and weights beside it."""
    shutil.copytree(RELEASED, tmp_path / "released")
    monkeypatch.chdir(tmp_path / "released")
    [folder] = Path("runs").iterdir()
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predict(run: Path) -> None:
    stored = rows(run)
    found = rekindle.Run(run).predict([Path("photos") / row["path"] for row in stored])
    for row, prediction in zip(stored, found, strict=True):
        assert prediction.classes == [row["prediction"]]
        assert prediction.confidences[0] == pytest.approx(float(row["confidence"]), abs=CLOSE)


def test_evaluate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = json.loads((run / "result.json").read_text())["test"]
    assert main(["evaluate", str(run), "photos", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confusion"] == stored["confusion"] and found["count"] == stored["count"]
    assert found["loss"] == pytest.approx(stored["loss"], abs=CLOSE)


def test_a_finished_one_is_returned_as_it_is(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert rekindle.fit(resume=run).result["id"] == "e3b5fa1aff99"
    assert {path: path.read_bytes() for path in before} == before


def test_a_stopped_one_goes_on_to_the_same_end(run: Path) -> None:
    """It was stopped after epoch 5 of 6: every option that has another name since is in its spec."""
    old = json.loads((run / "result.json").read_text())
    weights, lines, predictions = load_file(run / "model.safetensors"), (run / "metrics.jsonl").read_text().splitlines(), rows(run)
    for name in ("result.json", "model.safetensors", "predictions.csv", "model.json"):
        (run / name).unlink()
    made = rekindle.fit(resume=run)
    assert made.folder == run and made.result["id"] == old["id"]
    assert made.result["test"]["confusion"] == old["test"]["confusion"] and made.result["kept_epoch"] == old["kept_epoch"]
    for key, value in load_file(run / "model.safetensors").items():
        assert torch.allclose(value.double(), weights[key].double(), atol=CLOSE), key
    assert [row["prediction"] for row in rows(run)] == [row["prediction"] for row in predictions]
    now = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert now[:5] == [METRICS.stamped(json.loads(line)) for line in lines[:5]]
    assert now[5]["train"]["loss"] == pytest.approx(json.loads(lines[5])["train"]["loss"], abs=CLOSE)


def test_compare(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other-e3b5fa1aff99"
    shutil.copytree(run, other)
    assert main(["compare", str(run), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"]["difference"] == 0
