"""What the main commands show on terminals of 80 and 120 columns, as a person has seen and approved it.

`python -m pytest tests/cli/test_golden.py --rewrite-golden` writes what they show now; read the difference before it is kept. Figures and
times are noughts, padded as they were.
"""

import io
import re
import sys
from pathlib import Path

import pytest

from rekindle.cli import main
from rekindle.study.grid_file import from_dict
from rekindle.study.store import Study
from rekindle.training import progress
from tests.toys import picture_folder

GOLDEN = Path(__file__).with_name("golden")
WIDTHS = (80, 120)
FAST = [
    "--model",
    "tiny",
    "--epochs",
    "2",
    "--image-size",
    "16",
    "--batch-size",
    "4",
    "--workers",
    "0",
    "--precision",
    "32",
    "--device",
    "cpu",
]
COMMANDS = {
    "help": ["--help"],
    "fit-help": ["fit", "--help"],
    "predict-help": ["predict", "--help"],
    "methods": ["methods"],
    "data-list": ["data", "list"],
    "fit": ["fit", "photos", *FAST, "--augment", "none", "--name", "run{width}", "--method", "l2+rifle(periods=2)"],
    "fit-again": ["fit", "--resume", "run{width}"],
    "fit-nowhere": ["fit", "nowhere"],
    "fit-misspelt": ["fit", "photos", "--epcohs", "3"],
    "predict": ["predict", "latest", "photos/val", "--top-k", "2"],
    "evaluate": ["evaluate", "latest", "photos"],
    "compare": ["compare", "runs"],
    "study-status": ["study", "status", "study", "--once"],
}  # In this order, since runs are made and then used.
MEASURING = ("fit", "fit-again", "predict", "evaluate", "compare")
VERSIONED = ("help", "fit-help", "predict-help")  # Every version of Python lays help out in its own way.
PYTHON = (3, 11)


class Terminal(io.StringIO):
    """One that shows everything that is printed."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    picture_folder(root / "photos", {"train": 4, "val": 2, "test": 2})
    Study.create(root / "study", from_dict({"name": "small", "tasks": {"dtd": {"data": "dtd"}}, "methods": {"l2": "l2", "rifle": "rifle"}}))
    return root


@pytest.fixture(scope="module")
def shown(place: Path) -> dict[str, str]:
    """Everything that each command shows at each width, by the name of its file."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(progress, "SLOW", 1e9)  # On a busy machine, too, nothing is slow.
        patch.setattr("rekindle.report.compare_tables.duration", lambda _: "0 s")  # Where times differ, they are a column.
        for name, value in (("TERM", "dumb"), ("LINES", "40"), ("NO_COLOR", "1"), ("REKINDLE_HOME", str(place / "home"))):
            patch.setenv(name, value)
        for name, words in COMMANDS.items():
            for width in WIDTHS:
                patch.setenv("COLUMNS", str(width))
                text = _capture([word.format(width=width) for word in words], patch)
                found[f"{name}-{width}"] = plain(text) if name in MEASURING else text
    return found


def _capture(words: list[str], patch: pytest.MonkeyPatch) -> str:
    terminal = Terminal()
    patch.setattr(sys, "stdout", terminal)
    patch.setattr(sys, "stderr", terminal)
    try:
        main(words)
    except SystemExit:
        pass
    return terminal.getvalue()


def plain(text: str) -> str:
    """Without what differs from run to run: figures, and blanks at the ends of lines."""
    text = re.sub(r" *(?<![\w=/.])\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w/])", _nought, text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def _nought(found: re.Match[str]) -> str:
    """A figure as 0: one that blanks align keeps its end where it was."""
    figure = found[0]
    aligned = figure.startswith("  ")
    return "0".rjust(len(figure)) if aligned else " 0" if figure.startswith(" ") else "0"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_it_shows_what_was_approved(name: str, width: int, shown: dict[str, str], request: pytest.FixtureRequest) -> None:
    if name in VERSIONED and sys.version_info[:2] != PYTHON:
        pytest.skip(f"help is compared as Python {PYTHON} lays it out")
    file = GOLDEN / f"{name}-{width}.txt"
    if request.config.getoption("--rewrite-golden"):
        file.write_text(shown[file.stem], "utf-8")
    assert shown[file.stem] == file.read_text("utf-8")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_but_a_path_is_wider_than_the_terminal(name: str, width: int, shown: dict[str, str]) -> None:
    for line in shown[f"{name}-{width}"].splitlines():
        assert len(line) <= width or "/" in line.split()[-1], line


def test_there_is_no_other_file() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {f"{name}-{width}" for name in COMMANDS for width in WIDTHS}
