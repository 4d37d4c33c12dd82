"""Tables on a terminal of 80 columns: however long names are, each stands whole or with an ellipsis on one line, and no line wraps."""

import ast
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import rekindle
from rekindle.analysis.cleaning import Cleaning, Issue
from rekindle.cli import clean, data, fit, predict, study
from rekindle.cli.output import GAP, drawn, middle_cut, show, table
from rekindle.run import Prediction
from rekindle.study.status import Status

WIDTH = 80
NAMES = [f"{letter * 45}-of-a-name-{letter * 45}" for letter in "abc"]
COUNTS = dict.fromkeys(("done", "running", "stopped", "waiting", "failed"), 1000)


class Terminal(io.StringIO):
    """One that shows everything that is printed."""

    def isatty(self) -> bool:
        return True


def _folds() -> None:
    runs = [{"fold": 1, "count": 20, "val": 0.5, "test": 0.5, "run": name} for name in NAMES]
    figures = {"mean": 0.5, "interval": None}
    pictures = {"count": 40, "accuracy": 0.5}
    result = {"runs": runs, "val": figures, "test": figures, "pictures": pictures, "cautions": []}
    fit._print_folds(SimpleNamespace(result=result, folder=Path("x")))  # type: ignore[arg-type]


def _clean() -> None:
    issues = [Issue(name, "train", "label", "y" * 60, "z" * 60, 0.9) for name in NAMES]
    clean._print(Cleaning("photos", "tiny", NAMES, {"train": 9}, issues, [], "", {}), Path("page"), Path("file"))


def _cache() -> None:
    shards = [{"name": name, "bytes": 10**9, "in_use": False, "last_use": 0.0} for name in NAMES]
    data._print_cache([{"settings": "0123456789ab", "edge": 256, "interpolation": "bilinear", "pillow": "12.0", "shards": shards}])


def _status() -> None:
    found = Status("study", COUNTS, 0, dict.fromkeys(NAMES, COUNTS), [], [], [])  # type: ignore[arg-type]
    show(study._drawn(found, WIDTH))


def _predictions() -> None:
    predict._table([Prediction(name, ["cat"], [0.9]) for name in NAMES], False)


@pytest.mark.parametrize("shown", [_folds, _clean, _cache, _status, _predictions])
def test_no_name_breaks(shown: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    for name, value in (("COLUMNS", str(WIDTH)), ("TERM", "dumb"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", terminal)
    shown()
    monkeypatch.undo()
    lines = terminal.getvalue().splitlines()
    for name in NAMES:
        (line,) = [line for line in lines if name[:3] in line and name[-3:] in line and (name in line or "…" in line)]
        assert cell_len(line) <= WIDTH


TEXT = st.text("ab-/_服", min_size=1, max_size=70)


@given(rows=st.lists(st.tuples(TEXT, TEXT, st.integers(0, 10**6).map(str)), min_size=1, max_size=4))
def test_names_are_whole_or_keep_both_ends(rows: list[tuple[str, str, str]]) -> None:
    shown = io.StringIO()
    Console(file=shown, width=WIDTH).print(drawn(["name", "other", "count"], rows, WIDTH, names={"other"}))
    lines = shown.getvalue().splitlines()[1:]
    assert len(lines) == len(rows)
    for line, (first, second, count) in zip(lines, rows, strict=True):
        assert cell_len(line) <= WIDTH and line.split()[-1] == count
        whole = sum(map(cell_len, (first, second, count))) + 2 * GAP <= WIDTH and len(rows) == 1
        assert not whole or (first in line and second in line)


@given(text=TEXT, width=st.integers(3, 60))
def test_a_cut_text_fits(text: str, width: int) -> None:
    if cell_len(text) > width:
        cut = middle_cut(text, width)
        head, tail = cut.split("…")
        assert cell_len(cut) <= width and text.startswith(head) and text.endswith(tail)


def test_a_pipe_gets_names_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "other"], [[4 * name, 3 * name] for name in NAMES], names={"other"})
    assert all(4 * name in line and 3 * name in line for name, line in zip(NAMES, capsys.readouterr().out.splitlines()[1:], strict=True))


def test_no_table_is_made_beside_the_rule() -> None:
    """rich's own tables are made where names are cut, and in the leaderboard, which has a rule of its own."""
    root = Path(rekindle.__file__).parent
    makers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and _called(node.func) == "Table" and _imports_rich(path)
    }
    assert makers == {"cli/output.py", "report/compare_tables.py"}


def _called(function: Any) -> str:
    return str(getattr(function, "attr", getattr(function, "id", "")))


def _imports_rich(path: Path) -> bool:
    return "rich" in path.read_text("utf-8")
