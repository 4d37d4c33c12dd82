"""Two commands in one place: one is whole, the other is refused in a sentence or finds the same result, and nothing is lost."""

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import rekindle
from rekindle import files, locks
from rekindle.cli import main
from rekindle.errors import Busy, UserError
from rekindle.files import remove_temporaries, write_atomic
from rekindle.fitting import job
from rekindle.locks import NoLocks, locked, remove_if_unused
from rekindle.study.store import Study
from rekindle.study.worker import run_cell
from tests.faults.racers import Ended, race
from tests.study import fakes
from tests.study.test_store import make
from tests.toys import Notes, picture_folder

TINY = ["--model", "tiny", "--weights", "none", "--image-size", "32", "--epochs", "1", "--precision", "32"]
REFUSED = "at this moment; wait for it, or choose another --out."


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("pictures"), {"": 10}, size=32)


@pytest.fixture
def options(pictures: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "data": pictures,
        "model": "tiny",
        "weights": "none",
        "image_size": 32,
        "epochs": 1,
        "precision": "32",
        "out": tmp_path / "runs",
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("moment", ["open_folder", "write_predictions"])
def test_the_refused_fit_leaves_the_first_one_whole(moment: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second command starts when the first has the lock, before its first file and after its last epoch."""
    real, before = getattr(job, moment), []

    def meanwhile(folder: Path, *arguments: Any) -> None:
        before.append(contents(folder))
        with pytest.raises(Busy, match="another command is training"):
            rekindle.fit(**options)
        assert contents(folder) == before[-1] and folder.is_dir()
        real(folder, *arguments)

    monkeypatch.setattr(job, moment, meanwhile)
    run = rekindle.fit(**options)
    assert len(before) == 1 and run.result["status"] == "done"


def test_the_command_says_one_sentence_and_exits_with_1(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, statuses = job.open_folder, []

    def meanwhile(*arguments: Any) -> None:
        statuses.append(main(["fit", str(options["data"]), *TINY, "--out", str(options["out"])]))
        real(*arguments)

    monkeypatch.setattr(job, "open_folder", meanwhile)
    rekindle.fit(**options)
    assert statuses == [1]
    assert capsys.readouterr().err.splitlines()[-1].endswith(REFUSED)


def test_a_run_that_fails_before_it_began_leaves_no_folder(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        rekindle.fit(**{**options, "method": "l2+reinit_top(layers=99)"})
    assert not list(options["out"].glob("*"))


def test_what_a_kill_left_is_removed_by_the_next_start(options: dict[str, Any]) -> None:
    run = rekindle.fit(**options, keep_checkpoints=True)
    left = [run.folder / ".result.json.77.tmp", run.folder / "checkpoints" / ".epoch00001-step0000000.safetensors.0123456789abcdef.tmp"]
    for path in left:
        path.write_bytes(b"half")
    rekindle.fit(**options)
    assert not any(path.exists() for path in left)


def test_on_a_file_system_without_locks_a_run_goes_on_with_a_note(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "FileLock", lambda path: Lockless(OSError(errno.ENOLCK, "No locks available")))
    notes: list[str] = []
    assert rekindle.fit(**options, cache=False, listener=Notes(notes)).result["status"] == "done"
    assert [note for note in notes if "has no locks; let no other command work there" in note and str(options["out"]) in note]


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(errno.ENOLCK, "x"), OSError(errno.EOPNOTSUPP, "x")], ids=repr)
def test_a_study_needs_locks_and_says_so(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "FileLock", lambda path: Lockless(error))
    with pytest.raises(NoLocks, match=f"the file system of {tmp_path / 'study'} has no locks"):
        make(tmp_path)


def test_a_lock_that_may_not_be_written_is_no_missing_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "FileLock", lambda path: Lockless(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(PermissionError), locked(tmp_path / ".lock"):
        pass


def test_a_removed_lock_file_is_never_held_by_two(tmp_path: Path) -> None:
    """Each holder removes file and folder, while others are between opening and locking the same file."""
    inside, most, times, end = [0], [0], [0], time.monotonic() + 1.5

    def work(waits: bool) -> None:
        while time.monotonic() < end:
            with locked(tmp_path / "run" / ".lock", waiting="" if waits else None) as mine:
                if mine:
                    inside[0] += 1
                    most[0], times[0] = max(most[0], inside[0]), times[0] + 1
                    time.sleep(0.0005)
                    inside[0] -= 1
                    remove_if_unused(tmp_path / "run", ".lock")

    threads = [threading.Thread(target=work, args=(number == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and times[0] > 20
    assert not (tmp_path / "run").exists()


def test_writing_follows_no_link_and_two_writers_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "guessed")
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".a.json.guessed.tmp").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a.json", "theirs")
    assert (tmp_path / "victim").read_text() == "mine"
    monkeypatch.undo()
    texts = [str(number) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(tmp_path / "a.json", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.json").read_text() in texts
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "victim"]


def test_a_cell_whose_run_is_in_other_hands_waits(tmp_path: Path) -> None:
    def busy(*arguments: Any) -> Path:
        raise Busy("another command is training it")

    study = make(tmp_path)
    cell = study.cells()[0]
    assert not run_cell(study, cell, busy) and study.state(cell) == "waiting"
    assert run_cell(study, cell, fakes.answer) and study.state(cell) == "done"


def test_a_retry_leaves_what_another_command_finished_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path)
    cell = study.cells()[0]
    study.begin(cell)
    study.fail(cell.key, "broken")
    other, state = Study.open(study.folder), Study.state

    def finishing(self: Study, one: Any) -> str:
        found = state(self, one)
        if self is study and found == "failed":
            monkeypatch.setattr(Study, "state", state)
            other.reset_failed()
            run_cell(other, one, fakes.answer)
        return found

    monkeypatch.setattr(Study, "state", finishing)
    study.reset_failed()
    assert Study.open(study.folder).state(cell) == "done"


def check(ended: list[Ended], sentence: str = REFUSED) -> None:
    """At least one command did its job, and the others said one sentence."""
    assert any(one.status == 0 for one in ended), ended
    for one in ended:
        assert one.status in (0, 1), one
        assert one.status == 0 or one.said.splitlines()[-1].endswith(sentence), one.said
        assert "Traceback" not in one.said


def test_two_equal_fits_at_once(pictures: Path, tmp_path: Path) -> None:
    command = ["fit", str(pictures), *TINY, "--out", str(tmp_path)]
    check(race([command] * 2))
    [folder] = tmp_path.iterdir()
    assert json.loads((folder / "result.json").read_text("utf-8"))["status"] == "done"
    assert not list(folder.rglob("*.tmp"))
    assert main(command) == 0


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize(
    "more",
    [[], ["--method", "auto", "--weights", "default"], ["--freeze", "auto"], ["--method", "delta", "--weights", "default"]],
    ids=" ".join,
)
def test_many_equal_fits_at_once(more: list[str], turn: int, pictures: Path, tmp_path: Path) -> None:
    command = ["fit", str(pictures), *TINY, *more, "--out", str(tmp_path)]
    check(race([command] * 4))
    finished = [folder for folder in tmp_path.iterdir() if (folder / "result.json").is_file()]
    assert len(finished) == 1 and not list(tmp_path.rglob("*.tmp"))
    before = (finished[0] / "result.json").read_bytes()
    assert main(command) == 0 and (finished[0] / "result.json").read_bytes() == before


@pytest.mark.slow
def test_equal_studies_and_resumed_runs_at_once(pictures: Path, tmp_path: Path) -> None:
    grid = {
        "name": "race", "seeds": 3, "base": {"model": "tiny", "weights": "none", "image_size": 32, "epochs": 1, "precision": "32"},
        "tasks": {"colours": {"data": str(pictures)}}, "methods": {"L2": "l2", "L2-SP": "l2_sp"},
    }  # fmt: skip
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    command = ["study", "run", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "study"), "--jobs", "2"]
    assert [one.status for one in race([command] * 3)] == [0] * 3
    study = Study.open(tmp_path / "study")
    assert all(study.state(cell) == "done" for cell in study.cells())
    folder = study.run_folder(study.cells()[0])
    (folder / "result.json").unlink()
    check(race([["fit", "--resume", str(folder)]] * 4))
    assert (folder / "result.json").is_file()


@pytest.mark.slow
def test_equal_predictions_to_one_file_at_once(pictures: Path, tmp_path: Path) -> None:
    run = rekindle.fit(pictures, model="tiny", weights="none", image_size=32, epochs=1, out=tmp_path / "runs").folder
    command = ["predict", str(run), str(pictures), "--out", str(tmp_path / "found.csv")]
    assert [one.status for one in race([command] * 4)] == [0] * 4
    assert len((tmp_path / "found.csv").read_text("utf-8").splitlines()) == 21
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.csv", "runs"]


class Lockless:
    """A lock of a file system that has none."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def acquire(self, timeout: float) -> None:
        raise self._error
