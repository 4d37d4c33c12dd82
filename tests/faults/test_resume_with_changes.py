"""A run goes on with what no result depends on changed, to the same bits; any other change is refused with what to type."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import rekindle
from rekindle.cli import main
from rekindle.errors import UserError
from rekindle.files import read_csv
from rekindle.fitting import job
from rekindle.records import DECISIVE, package_versions, read_spec
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.stops import stopped_at
from tests.toys import picture_folder

OPTIONS: dict[str, Any] = {
    "model": "tiny", "weights": "none", "epochs": 3, "lr": 0.01, "image_size": 32, "batch_size": 4, "precision": "32", "augment": "randaugment",
    "method": "l2+dropout(p=0.2)",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("photos"), {"train": 5, "val": 3})


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rekindle.fit(data, **OPTIONS, out=tmp_path_factory.mktemp("whole"), workers=0, device="cpu").folder


@pytest.fixture
def stopped(data: Path, tmp_path: Path) -> Path:
    """A run that was stopped in the midst of its second epoch."""
    with stopped_at(1, 0) as stop:
        rekindle.fit(data, **OPTIONS, out=tmp_path, workers=0, device="cpu")
    return stop.folder


def without_clock(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines]


@pytest.mark.parametrize(
    "changed", [{"workers": 3}, {"cache": False, "workers": 1}, {"device": "auto"}, {"epochs": 3, "lr": 0.01, "freeze": "none"}], ids=str
)
def test_what_may_change_changes_no_bit(changed: dict[str, Any], stopped: Path, whole: Path) -> None:
    if changed.get("device") == "auto" and torch.cuda.is_available():
        pytest.skip("another device computes other bits")
    folder = rekindle.fit(resume=stopped, **{"device": "cpu", **changed}).folder
    assert folder.name == whole.name
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert without_clock(folder) == without_clock(whole) and read_csv(folder / "predictions.csv") == read_csv(whole / "predictions.csv")


@pytest.mark.parametrize(
    ("typed", "changed"),
    [
        (["--epochs", "9"], {"epochs": 9}),
        (["--epochs", "auto"], {"epochs": None}),
        (["--seed", "5", "--no-flip"], {"seed": 5, "flip": False}),
        (["--method", "l2+rifle(periods=2)"], {"method": "l2+rifle(periods=2)"}),
        (["--devices", "2"], {"devices": 2}),
        (["--lr", "0.5", "--workers", "2"], {"lr": 0.5}),
    ],
    ids=str,
)
def test_what_makes_another_run_is_refused_with_the_command_for_it(
    typed: list[str], changed: dict[str, Any], whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert main(["fit", "--resume", str(whole), *typed]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("rekindle: --") and "leave it out" in told and told.count("\n") == 0
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    command = shlex.split(told.partition("start the other run with rekindle ")[2].partition(". Only --workers")[0])
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(rekindle, "fit", lambda data, **options: asked.append({"data": data, **options}) or pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception):
        main(command)
    spec = {name: value for name, value in asked[0].items() if name in read_spec(whole).to_dict()}
    made, old = rekindle.spec.RunSpec(**spec), read_spec(whole)
    assert {name: getattr(made, name) for name in made.to_dict() if getattr(made, name) != getattr(old, name)} == changed


@pytest.mark.parametrize("package", DECISIVE)
def test_a_run_of_other_versions_goes_on_and_says_so(
    package: str, stopped: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = package_versions(DECISIVE)
    monkeypatch.setattr(job, "package_versions", lambda names: {**now, package: "99.0"})
    assert main(["fit", "--resume", str(stopped), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    note = f"the run was written under {package} {now[package]}, now 99.0; its end may differ from that of a run in one piece."
    assert (told.out + told.err).count(note) == 1
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_run_of_the_same_versions_says_nothing_of_them(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--resume", str(stopped), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert "written under" not in told.out + told.err


@pytest.mark.parametrize("damage", [b"{", b"{}", b"\xff\xfe"], ids=repr)
def test_a_damaged_result_is_written_again_from_the_checkpoints(damage: bytes, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / whole.name))
    (folder / "result.json").write_bytes(damage)
    assert main(["fit", "--resume", str(folder), "--device", "cpu"]) == 0
    assert_equal_runs(folder, whole, epochs=3)


def test_a_value_that_is_not_allowed_is_told_first(whole: Path) -> None:
    with pytest.raises(UserError, match="--epochs must be"):
        rekindle.fit(resume=whole, epochs=-1)
    with pytest.raises(UserError, match="did you mean epochs"):
        rekindle.fit(resume=whole, epoch=3)  # type: ignore[call-arg]
