"""The command in odd surroundings: other encodings, closed pipes, no docstrings, no home, long names, `~` in paths."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rekindle
from rekindle.cli import main
from rekindle.files import expand, write_atomic
from rekindle.fitting.folder_names import slug
from rekindle.spec import RunSpec
from tests.toys import picture_folder

FAST = [
    "--model",
    "tiny",
    "--weights",
    "none",
    "--epochs",
    "1",
    "--lr",
    "0.01",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--workers",
    "0",
]
PRECISION = ["--precision", "32", "--device", "cpu"]


def command(*words: str, **environment: str | None) -> subprocess.CompletedProcess[bytes]:
    """Run the command; a variable that is None is taken away."""
    given = {**os.environ, **environment}
    kept = {name: value for name, value in given.items() if value is not None}
    return subprocess.run([sys.executable, "-m", "rekindle", *words], capture_output=True, check=False, env=kept)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose classes have names beyond ASCII."""
    root = tmp_path_factory.mktemp("names")
    picture_folder(root / "data", {"train": 4, "val": 2, "test": 2})
    for split in (root / "data").iterdir():
        for number, folder in enumerate(sorted(split.iterdir())):
            folder.rename(split / f"{number}-猫é🐈")
    return rekindle.fit(
        root / "data", out=root / "runs", model="tiny", weights="none", epochs=1, lr=0.01, image_size=32, batch_size=4, precision="32"
    ).folder


RESULTS = [
    ["predict", "{run}", "{data}"], ["predict", "{run}", "{data}", "--json"], ["evaluate", "{run}", "{data}"], ["data", "check", "{data}"],
]  # fmt: skip
ENCODINGS: list[dict[str, str | None]] = [
    {"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": None, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
@pytest.mark.parametrize("what", RESULTS)
def test_no_result_is_lost_to_the_encoding_of_a_pipe(what: list[str], encoding: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    assert main([word.format(run=run, data=run.parent.parent / "data") for word in what]) == 0
    assert "猫é🐈" in printed.getvalue().decode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENCODINGS, ids=str)
@pytest.mark.parametrize("what", RESULTS)
def test_no_result_is_lost_to_an_encoding(what: list[str], environment: dict[str, str | None], run: Path) -> None:
    if what[0] in ("data", "evaluate") and "LC_ALL" in environment:
        pytest.skip("there names of files and of class folders are no text to Python, which both commands report")
    data = str(run.parent.parent / "data")
    done = command(*(word.format(run=run, data=data) for word in what), **environment)
    assert done.returncode == 0, done.stderr
    assert "猫é🐈" in done.stdout.decode("utf-8")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        (["methods"], ""),
        (["fit", "--help"], ""),
        *(
            pytest.param(words, unbuffered, marks=pytest.mark.slow)
            for words in (["models"], ["methods", "rifle"], ["data", "list"], ["fit", "--help"], ["--help"])
            for unbuffered in ("", "1")
        ),
    ],
)
def test_a_closed_pipe_is_no_error(words: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # Whoever read has gone already.
    done = subprocess.run(
        [sys.executable, "-m", "rekindle", *words], stdout=writer, stderr=subprocess.PIPE, check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == b""
    # argparse passes over a closed pipe by itself, but not over one that shows when the rest is flushed.
    assert done.returncode in ((0, 141) if "--help" in words else (141,))


def test_a_run_goes_on_when_nobody_reads_its_progress(tmp_path: Path) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    reader, writer = os.pipe()
    os.close(reader)
    words = ["fit", str(tmp_path / "data"), *FAST, *PRECISION, "--out", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-m", "rekindle", *words], stdout=subprocess.PIPE, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 0
    assert b"validation accuracy" in done.stdout


WITHOUT_DOCSTRINGS = """
from rekindle.cli import main
for words in (["--help"], ["fit", "--help"], ["analyze", "--help"], ["methods"], ["methods", "rifle"], ["data", "list"]):
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    if status:
        raise SystemExit(f"{words}: {status}")
"""


def test_without_docstrings() -> None:
    """And without asserts, which `-OO` takes away as well."""
    done = subprocess.run([sys.executable, "-OO", "-c", WITHOUT_DOCSTRINGS], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_without_docstrings(tmp_path: Path) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    words = ["fit", str(tmp_path / "data"), *FAST, *PRECISION, "--out", str(tmp_path / "runs"), "--method", "l2+rifle(periods=1)"]
    assert command(*words, PYTHONOPTIMIZE="2").returncode == 0


def test_without_a_home_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    monkeypatch.delenv("REKINDLE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "list"]) == 0
    assert main(["fit", "data", *FAST, *PRECISION]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]


@pytest.mark.parametrize("letter", ["a", "é", "猫", "🐈"])
@pytest.mark.parametrize("count", [1, 59, 64, 300])
def test_names_are_cut_by_bytes(letter: str, count: int, tmp_path: Path) -> None:
    cut = slug(letter * count)
    assert len(cut.encode()) <= 60
    assert (letter * count).startswith(cut) or letter == "🐈"  # An emoji is no letter.
    name = letter * (255 // len(letter.encode()))
    write_atomic(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_tilde_stands_for_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    assert main(["fit", "~/data", *FAST, *PRECISION, "--out", "~/runs"]) == 0
    [run] = (tmp_path / "runs").iterdir()
    place = f"~/runs/{run.name}"
    assert main(["predict", place, "~/data/val", "--out", "~/found.csv"]) == 0
    assert (tmp_path / "found.csv").is_file()
    capsys.readouterr()
    assert main(["evaluate", place, "~/data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"]
    assert rekindle.Run(place).predict("~/data/val")  # type: ignore[arg-type]
    assert rekindle.Run(run).evaluate("~/data")
    assert RunSpec(data="~/data", weights="~/w.pth", source_data="~/s").weights == str(tmp_path / "w.pth")
    again = rekindle.fit("~/data", out="~/others", model="tiny", weights=f"{place}/model.safetensors", epochs=1, lr=0.01, image_size=32)
    assert again.folder.parent == tmp_path / "others"
    assert not (tmp_path / "~").exists()


def test_an_unknown_users_folder_stays_as_it_is() -> None:
    assert expand("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("end", ["return 3", "raise SystemExit(3)"])
def test_the_process_does_not_look_for_garbage_as_it_ends(end: str) -> None:
    program = (
        "import atexit, gc, rekindle.__main__ as command\n"
        f"def main(): {end}\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.get_threshold()[2] == command.RARELY))\n"
        "command.main = main\n"
        "raise SystemExit(command.run())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (3, "True True\n", "")
