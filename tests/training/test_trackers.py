"""Trackers get the figures of metrics.jsonl, also where a run was stopped and goes on, and none is needed."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.cli import main
from rekindle.errors import UserError
from rekindle.training.trackers import OPENERS, figures_of
from tests.faults.stops import stopped_at
from tests.toys import picture_folder

OPTIONS: dict[str, Any] = {
    "model": "tiny",
    "weights": "none",
    "epochs": 3,
    "lr": 0.01,
    "image_size": 32,
    "batch_size": 4,
    "precision": "32",
}
Found = dict[str, dict[int, float]]


def of_tensorboard(folder: Path) -> Found:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), {"tensors": 0, "scalars": 0})
    events.Reload()
    found: Found = {}
    for name in events.Tags()["tensors"]:
        for event in events.Tensors(name):
            if event.tensor_proto.double_val:
                found.setdefault(name, {})[event.step] = event.tensor_proto.double_val[0]
    for name in events.Tags()["scalars"]:
        found[name] = {event.step: event.value for event in events.Scalars(name)}
    return found


def of_mlflow(folder: Path) -> Found:
    import mlflow

    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    client = mlflow.MlflowClient()
    return {name: {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)} for name in run.data.metrics}


def of_trackio(folder: Path) -> Found:
    (database,) = (folder.parent / "trackio").rglob("rekindle.db")
    found: Found = {}
    with sqlite3.connect(database) as opened:
        for step, metrics in opened.execute("select step, metrics from metrics"):
            for name, value in json.loads(metrics).items():
                found.setdefault(name, {})[step] = value
    return found


def of_wandb(folder: Path) -> Found:
    from wandb.proto.wandb_internal_pb2 import Record

    found: Found = {}
    for path in folder.rglob("*.wandb"):
        for data in log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in items.items():
                if not name.startswith("_"):
                    found.setdefault(name, {})[int(items["_step"])] = value
    return found


def log_records(data: bytes) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, in blocks of 32 KiB, behind wandb's header of 7 bytes."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # Too little for a record's head is padding.
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # Whole, or its last part.
            yield record
            record = b""


READERS = {"tensorboard": of_tensorboard, "mlflow": of_mlflow, "trackio": of_trackio, "wandb": of_wandb}


@pytest.mark.parametrize("kind", OPENERS)
def test_its_figures_are_those_of_the_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is stopped in its second epoch and goes on."""
    for name, value in {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "MLFLOW_TRACKING_URI": (tmp_path / "mlflow").as_uri(),
                        "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    pytest.importorskip(kind, reason=f"{kind} is not installed")
    data = picture_folder(tmp_path / "photos", {"train": 5, "val": 3})
    with stopped_at(1, 0) as stop:
        rekindle.fit(data, **OPTIONS, out=tmp_path, log=kind)
    run = rekindle.fit(resume=stop.folder, log=kind)
    found = READERS[kind](run.folder)
    for record in run.history:
        for name, value in figures_of(record):
            assert found[name][record["epoch"]] == pytest.approx(value, rel=1e-12)
    assert len(found["val/accuracy"]) == 3
    assert list(found["final/val/accuracy"].values())[-1] == pytest.approx(run.result["val"]["accuracy"])


def test_figures_have_names_and_are_finite() -> None:
    record = {
        "format": 2,
        "epoch": 1,
        "val": {"loss": 0.5, "accuracy": float("nan")},
        "restarted": True,
        "timing": {"seconds": 1},
        "x": {"y": {"z": 3}, "t": "no"},
    }
    assert dict(figures_of(record)) == {"val/loss": 0.5, "restarted": 1.0, "x/y/z": 3.0}


@pytest.mark.parametrize("kind", OPENERS)
def test_an_absent_tracker_is_named_before_the_first_step(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, kind, None)
    data = picture_folder(tmp_path / "photos", {"train": 3, "val": 2})
    with pytest.raises(UserError, match=f"--log {kind} needs the package {kind}.*; pip install {kind}"):
        rekindle.fit(data, **OPTIONS, out=tmp_path, log=kind)
    assert not list(tmp_path.rglob("metrics.jsonl")) or not next(tmp_path.rglob("metrics.jsonl")).read_text()


def test_another_word_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="--log must be"):
        rekindle.fit(tmp_path, log="excel")  # type: ignore[call-overload]
    with pytest.raises(SystemExit):
        main(["fit", str(tmp_path), "--log", "excel"])
    assert "tensorboard" in capsys.readouterr().err
