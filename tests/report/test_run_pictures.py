"""The pictures that a run leaves."""

import json
from pathlib import Path

import pytest

from rekindle.report import figures, run_pictures
from rekindle.report.results import worst_mistakes
from rekindle.report.run_pictures import Finished, write_pictures

from .conftest import MakeRun, history


def test_worst_mistakes_are_wrong_answers_by_confidence(make_run: MakeRun) -> None:
    folder = make_run("run", [(0, 0), (0, 1), (1, 2), (2, 0)], report=False)
    text = (folder / "predictions.csv").read_text("utf-8").splitlines()
    text = [line.replace("0.800000", "0.900000") if line.startswith("test,2.png") else line for line in text]
    (folder / "predictions.csv").write_text("\n".join(text) + "\n", encoding="utf-8")
    assert [row["path"] for row in worst_mistakes(folder, "test", 2)] == ["2.png", "1.png"]


def test_no_picture_claims_that_there_are_no_mistakes_when_their_files_are_gone(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("run", [(0, 0), (0, 1)], report=False)
    result = json.loads((folder / "result.json").read_text("utf-8"))
    write_pictures(Finished(folder, history(2), result, (tmp_path / "moved away").joinpath))
    assert (folder / "curves.png").is_file() and (folder / "confusion.png").is_file() and not (folder / "mistakes.png").exists()


def test_an_unreadable_picture_is_passed_over(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("run", [(0, 1), (1, 0)], report=False)
    (tmp_path / "photos" / "0.png").write_bytes(b"broken")
    write_pictures(Finished(folder, history(2), json.loads((folder / "result.json").read_text("utf-8")), (tmp_path / "photos").joinpath))
    assert (folder / "mistakes.png").is_file()


def test_a_further_picture_is_one_entry(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function and one entry: it is drawn, and stands on the page under its heading."""
    drawn = run_pictures.RunPicture("Support", "Pictures of each class.", "A bar a class", lambda run: figures.curves(run.history))
    monkeypatch.setitem(run_pictures.PICTURES, "support", drawn)
    folder = make_run("run", [(0, 0), (0, 1)])
    page = (folder / "report.html").read_text("utf-8")
    assert (folder / "support.png").is_file()
    assert "<h2>Support</h2>" in page and 'alt="A bar a class"' in page and page.count("data:image/png") == len(run_pictures.PICTURES)
