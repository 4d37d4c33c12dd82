"""Files of runs and studies that are damaged, foreign or of another version end in one sentence, whatever the damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import rekindle
from rekindle import models
from rekindle.cli import main
from rekindle.data.cache.cache import Cache, Settings, Unusable
from rekindle.errors import Later, Unreadable, UserError
from rekindle.records import METRICS, RESULT, read_recipe
from rekindle.report.analyses import analyze
from rekindle.report.compare import compare
from rekindle.report.run_page import write_report
from rekindle.run import Run
from rekindle.spec import SPEC
from rekindle.stored import KEY, FileFormat
from rekindle.study.report.numbers import study_numbers
from rekindle.study.report.page import write
from rekindle.study.status import read_status
from rekindle.study.store import CELL, STUDY, Study
from rekindle.training.checkpoints import Unfit, load_state, save_state
from tests.faults.mutations import VERSIONS, Reader, count
from tests.toys import text_of

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
RUN, STUDY_FOLDER = FIXTURES / "run_format_2", FIXTURES / "study_format_2"


def complete_run(folder: Path) -> Path:
    """A finished run, with weights in the place of those that are too large to be kept here."""
    shutil.copytree(RUN, folder)
    recipe = read_recipe(folder)
    module = models.build(recipe["model"], weights="none").module
    models.replace_classifier(module, len(recipe["classes"]))
    models.save_model(folder, module, {**recipe})
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    shutil.copytree(STUDY_FOLDER, tmp_path / "study")
    return tmp_path / "study"


def result(folder: Path) -> Any:
    return Run(folder).result


def history(folder: Path) -> Any:
    return Run(folder).history


def network(folder: Path) -> Any:
    return Run(folder).model


def comparison(folder: Path) -> Any:
    return text_of(compare([folder, RUN]))


def gradient_norms(folder: Path) -> Any:
    return analyze("gradient-norms", [folder])


def learning_curves(folder: Path) -> Any:
    return analyze("learning-curves", [folder])


def page(folder: Path) -> Any:
    return write_report(folder)


def resumed(folder: Path) -> Any:
    return rekindle.fit(resume=folder, device="cpu", cache=False)


def status(folder: Path) -> Any:
    return json.dumps(read_status(Study.open(folder)).to_dict())


def numbers(folder: Path) -> Any:
    return study_numbers(Study.open(folder))


def again(folder: Path) -> Any:
    opened = Study.open(STUDY_FOLDER)
    return Study.create(folder, opened.grid)


def report(folder: Path) -> Any:
    return write(Study.open(folder))


RUN_READERS: list[Reader] = [result, history, network, comparison, page, resumed]
STUDY_READERS: list[Reader] = [status, numbers, again]
DRAWN: list[Reader] = [gradient_norms, learning_curves, report]  # These take ten times as long.


@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_runs(seed: int, whole_run: Path, tmp_path: Path) -> None:
    found = count(whole_run, tmp_path / "run", RUN_READERS, 90, seed)
    assert found["worked"] > 10 and found["refused"] > 10


def test_damaged_studies(tmp_path: Path) -> None:
    found = count(STUDY_FOLDER, tmp_path / "study", STUDY_READERS, 90, 0)
    assert found["worked"] > 10 and found["refused"] > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_much_damage(seed: int, whole_run: Path, tmp_path: Path) -> None:
    count(whole_run, tmp_path / "run", [*RUN_READERS, *DRAWN[:2]], 1000, seed)
    count(STUDY_FOLDER, tmp_path / "study", [*STUDY_READERS, DRAWN[2]], 1000, seed)


def with_version(path: Path, version: Any) -> None:
    """Let a file say that it is of a version; None as "absent" takes the key away."""
    text = path.read_text("utf-8")
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({**json.loads(line), KEY: version}) + "\n" for line in text.splitlines()), "utf-8")
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump({**yaml.safe_load(text), KEY: version}), "utf-8")
    else:
        path.write_text(json.dumps({**json.loads(text), KEY: version}), "utf-8")


FILES: dict[str, Callable[[Path], Any]] = {
    "spec.yaml": resumed, "environment.json": resumed, "data.json": page, "metrics.jsonl": history, "result.json": result, "model.json": network,
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
@pytest.mark.parametrize("name", FILES)
def test_later_versions_and_nonsense_are_refused(name: str, version: Any, run: Path) -> None:
    with_version(run / name, version)
    with pytest.raises(Unreadable) as caught:
        FILES[name](run)
    later = isinstance(version, int) and not isinstance(version, bool) and version > 2
    words = f"{run / name} is of format {version}, from a later rekindle; this one reads 1 to 2: upgrade rekindle (pip install --upgrade rekindle)."
    assert isinstance(caught.value, Later) == later and "\n" not in str(caught.value)
    assert str(caught.value) == words if later else f"{run / name} is damaged (its format " in str(caught.value)


@pytest.mark.parametrize("name", ["data.json", "metrics.jsonl", "result.json", "model.json"])
def test_a_file_without_a_version_is_the_oldest_and_opens(name: str, run: Path) -> None:
    before = FILES[name](run)
    lines = [
        json.loads(line)
        for line in ((run / name).read_text("utf-8").splitlines() if name.endswith("l") else [(run / name).read_text("utf-8")])
    ]
    (run / name).write_text(
        "".join(json.dumps({key: value for key, value in line.items() if key != KEY}) + "\n" for line in lines), "utf-8"
    )
    after = FILES[name](run)
    assert name in ("data.json", "model.json") or after == before


@pytest.mark.parametrize(
    "command",
    [["compare", "RUN", str(RUN)], ["evaluate", "RUN", "."], ["predict", "RUN", "."], ["fit", "--resume", "RUN"]],
    ids=lambda c: c[0],
)
def test_the_command_ends_with_one_sentence_and_status_1(command: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("spec.yaml", "model.json", "result.json"):
        (run / name).write_bytes((run / name).read_bytes()[:-40] + b"\xff")
    assert main([str(run) if word == "RUN" else word for word in command]) == 1
    told = capsys.readouterr().err
    assert told.startswith("rekindle: ") and told.count("\n") == 1 and " is damaged (" in told


def cell_files(folder: Path) -> list[Path]:
    return sorted((folder / "cells").glob("*.json"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"state": 3}', b'{"state": "done"}', b"[" * 5000, b"\xff", b'{"format": 3, "state": "done"}']
)
def test_a_damaged_cell_is_named_and_counts_as_not_done(content: bytes, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cell_files(study)[0]
    path.write_bytes(content)
    found = read_status(Study.open(study))
    assert found.counts["done"] == len(cell_files(study)) - 1 and found.counts["waiting"] == 1
    if content != b'{"state": "done"}':  # Which says nothing that is wrong.
        [sentence] = found.damaged
        assert sentence.startswith(f"{path} is ")
        assert main(["study", "status", str(study), "--once"]) == 0 and path.name in "".join(capsys.readouterr().out.split())


def test_a_damaged_result_or_history_of_a_cell_is_named_and_the_report_written(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = sorted((study / "runs").iterdir())[:2]
    (first / "result.json").write_text("{}", "utf-8")
    (second / "metrics.jsonl").write_text("[", "utf-8")
    assert main(["study", "report", str(study)]) == 0
    told = capsys.readouterr().err
    assert f"{first / 'result.json'} is damaged (" in told and f"{second / 'metrics.jsonl'} is damaged (" in told and told.count("\n") == 2
    assert "3 of 4 runs done" in (study / "report" / "report.md").read_text("utf-8")


def test_a_study_in_which_a_later_rekindle_worked_is_left_alone(study: Path) -> None:
    with_version(cell_files(study)[0], 3)
    before = cell_files(study)[0].read_bytes()
    with pytest.raises(Later, match="from a later rekindle"):
        again(study)
    with_version(study / "study.yaml", 3)
    with pytest.raises(Later, match=r"study\.yaml is of format 3"):
        status(study)
    assert cell_files(study)[0].read_bytes() == before


def test_a_damaged_cell_is_written_over(study: Path) -> None:
    path = cell_files(study)[0]
    path.write_bytes(b"{")
    opened = again(study)
    opened.update(path.stem, state="waiting")
    assert opened.record(path.stem) == {"state": "waiting"} and not opened.faults


def test_changed_options_are_refused_before_anything_is_read(run: Path) -> None:
    spec = yaml.safe_load((run / "spec.yaml").read_text("utf-8"))
    (run / "spec.yaml").write_text(yaml.safe_dump(spec | {"epochs": 9}), "utf-8")
    with pytest.raises(UserError, match="changed since the run began"):
        resumed(run)


def test_checkpoints_and_weights_state_their_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"model": {"weight": torch.ones(2)}}
    path = save_state(tmp_path, 1, 0, state)
    assert load_state(path)["model"]["weight"].tolist() == [1.0, 1.0]
    models.save_model(tmp_path, nn.Linear(2, 2), {})
    for stated, error in (("3", Later), ("0", Unfit), ("two", Unfit)):
        monkeypatch.setattr(FileFormat, "metadata", lambda self, stated=stated: {"rekindle_format": stated})
        with pytest.raises(error):
            load_state(save_state(tmp_path / "other", 1, 0, state))
        models.save_model(tmp_path / "other", nn.Linear(2, 2), {})
        with pytest.raises(Unreadable):
            models.read_model(tmp_path / "other")


def test_every_format_is_read_as_it_is_written(tmp_path: Path) -> None:
    for form in (RESULT, METRICS, SPEC, STUDY, CELL):
        assert form.stamped({"a": 1}) == {KEY: 2, "a": 1}
    plain = FileFormat(1, dict[str, int])
    plain.write(tmp_path / "a.json", {"one": 1})
    plain.write_yaml(tmp_path / "a.yaml", {"one": 1})
    assert plain.read(tmp_path / "a.json") == plain.read_yaml(tmp_path / "a.yaml") == {"one": 1}
    with pytest.raises(Unreadable, match=r"there is no .*b\.json; remove it and start again"):
        plain.read(tmp_path / "b.json")


@pytest.mark.parametrize("version", VERSIONS, ids=repr)
def test_a_cache_of_a_later_rekindle_is_left_alone_and_a_damaged_one_described_anew(version: Any, tmp_path: Path) -> None:
    settings, told = Settings(8, "bilinear"), list[str]()
    shelf = Cache(tmp_path).shelf(settings, told.append)
    with shelf.writing(), shelf.sink() as sink:
        sink.add("0" * 64, np.zeros((8, 8, 3), np.uint8))
        sink.finish()
    path = shelf.folder / "settings.json"
    with_version(path, version)
    before = path.read_bytes()
    again = Cache(tmp_path).shelf(settings, told.append)
    if isinstance(version, int) and not isinstance(version, bool) and version > 2:
        with pytest.raises(Unusable, match="from a later rekindle"), again.writing():
            pass
        assert again.get("0" * 64) is None and path.read_bytes() == before
    else:
        with again.writing():
            assert again.get("0" * 64) is not None
        assert json.loads(path.read_text("utf-8"))[KEY] == 2 and told[-1].startswith(f"{path} is damaged (")
    assert Cache(tmp_path).listing()[0]["bytes"] > 0
