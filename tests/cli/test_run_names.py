"""What stands for a run: its folder, the beginning of its name or id, the latest; and the name that a user gives."""

import os
from pathlib import Path

import pytest
import yaml

from rekindle.cli import main
from rekindle.cli.run_names import find_run
from rekindle.errors import UserError
from rekindle.fitting.folder_names import SLUG_BYTES, check_free, check_name
from tests.toys import picture_folder

FAST = ["--model", "tiny", "--epochs", "1", "--image-size", "16", "--batch-size", "4", "--workers", "0", "--precision", "32"]


def folder_of(place: Path, id_: str, written: float, done: bool = True) -> Path:
    """What `find_run` looks at of a run folder."""
    place.mkdir(parents=True)
    (place / "environment.json").write_text(f'{{"run": "{id_}"}}')
    for name in ("spec.yaml", *(["result.json"] if done else [])):
        (place / name).touch()
        os.utime(place / name, (written, written))
    return place


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.chdir(tmp_path)
    made = {
        "old": folder_of(Path("runs/photos-tiny-l2-s0-abc123abc123"), "abc123abc123", 1),
        "new": folder_of(Path("runs/photos-tiny-rifle-s0-abd456abd456"), "abd456abd456", 2),
        "named": folder_of(Path("runs/mine"), "f00f00f00f00", 3),
        "begun": folder_of(Path("runs/half"), "0a0a0a0a0a0a", 4, done=False),
    }
    (Path("runs") / "auto-photos-s0" / "inner").mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("abc", "old"), ("abd456abd456", "new"), ("photos-tiny-r", "new"), ("f00", "named"), ("mi", "named"), ("runs/abd", "new"),
        ("runs/mine", "named"), ("latest", "named"), ("runs/latest", "named"), ("0a", "begun"),
    ],
)  # fmt: skip
def test_a_run_is_found(typed: str, meant: str, runs: dict[str, Path]) -> None:
    assert find_run(typed) == runs[meant]


def test_the_latest_to_go_on_with_may_be_unfinished(runs: dict[str, Path]) -> None:
    assert find_run("latest", finished=False) == runs["begun"]


@pytest.mark.parametrize("typed", ["zzz", "elsewhere/abc", "auto", "./zzz", "runs/nothing"])
def test_what_names_no_run_stays_as_it_was_typed(typed: str, runs: dict[str, Path]) -> None:
    assert find_run(typed) == Path(typed)


def test_a_beginning_of_several_is_refused_by_name(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="photos-tiny-l2-s0-abc123abc123, photos-tiny-rifle-s0-abd456abd456 in runs; type more of it"):
        find_run("ab")


def test_a_damaged_neighbour_hides_no_run(runs: dict[str, Path]) -> None:
    (runs["old"] / "environment.json").write_text("{")
    assert find_run("f00") == runs["named"]


def test_no_run_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no finished run in runs"):
        find_run("latest")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "a b", "latest", "~x", "x" * (SLUG_BYTES + 1), "a\n"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="^--name takes"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "first_try", "2026-11.b=3", "猫"])
def test_names_that_are_taken(name: str) -> None:
    check_name(name)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path / "free", "1")
    check_free(folder_of(tmp_path / "same", "1", 1), "1")
    with pytest.raises(UserError, match="holds a run with other settings or data; give another --name, or go on with it: --resume"):
        check_free(tmp_path / "same", "2")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    for place in (tmp_path / "photos", tmp_path / "photos" / "a.jpg"):
        with pytest.raises(UserError, match="holds something else than a run"):
            check_free(place, "1")


def test_a_named_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, found again by its name, its id and `latest`, finished without checkpoints, and refused to another run."""
    monkeypatch.chdir(tmp_path)
    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    command = ["fit", "data", *FAST, "--name", "first"]
    assert main(command) == 0
    run = Path("runs/first")
    assert not (run / "checkpoints").exists()
    again = {"same command": command, "by name": ["fit", "--resume", "fir"], "latest": ["fit", "--resume", "latest"]}
    for what, words in again.items():
        capsys.readouterr()
        assert main(words) == 0
        assert "runs/first is finished already; nothing was trained again." in capsys.readouterr().err, what
    for words in (["predict", "latest", "data/val"], ["evaluate", "first", "data"], ["predict", "fir", "data/val"]):
        assert main(words) == 0
    assert main(["compare", "first", "latest"]) == 2  # The same one, named twice.
    capsys.readouterr()
    assert main([*command, "--seed", "3"]) == 2
    assert "runs/first holds a run with other settings or data" in capsys.readouterr().err
    assert main(["fit", "--resume", "first", "--name", "second"]) == 2
    assert "is for a new run" in capsys.readouterr().err
    assert yaml.safe_load((run / "spec.yaml").read_text())["seed"] == 0
    assert main(["fit", "data", *FAST, "--seed", "1", "--keep-checkpoints"]) == 0
    assert [path.name for path in Path("runs").glob("*/checkpoints/*")] == ["epoch00001-step0000000.safetensors"]
