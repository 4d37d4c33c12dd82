"""The pictures that a run leaves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rekindle
from rekindle.analysis.calibration import at_temperature
from rekindle.errors import Unreadable
from rekindle.report import figures, run_pictures
from rekindle.report.cards import mistake_cards, read_cards, write_cards
from rekindle.report.results import worst_mistakes
from rekindle.report.run_page import write_report
from rekindle.training.listener import Silent
from tests.toys import picture_folder

from .conftest import MakeRun


def test_worst_mistakes_are_wrong_answers_by_confidence(make_run: MakeRun) -> None:
    folder = make_run("run", [(0, 0), (0, 1), (1, 2), (2, 0)], report=False)
    text = (folder / "predictions.csv").read_text("utf-8").splitlines()
    text = [line.replace("0.800000", "0.900000") if line.startswith("test,2.png") else line for line in text]
    (folder / "predictions.csv").write_text("\n".join(text) + "\n", encoding="utf-8")
    assert [row["path"] for row in worst_mistakes(folder, "test", 2)] == ["2.png", "1.png"]


def test_cards_are_the_surest_mistakes_and_pictures_that_are_gone_or_broken_have_none(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("run", [(0, 0), (0, 1), (1, 2), (2, 0)], report=False)
    photos = tmp_path / "photos"
    cards = mistake_cards(folder, "test", photos.joinpath)
    assert [card["path"] for card in cards] == ["1.png", "2.png", "3.png"]
    assert all(card["image"].startswith("data:image/jpeg") and card["label"] != card["prediction"] for card in cards)
    (photos / "1.png").write_bytes(b"broken")
    (photos / "2.png").unlink()
    assert [card["path"] for card in mistake_cards(folder, "test", photos.joinpath)] == ["3.png"]


def test_without_mistakes_the_cards_are_right_answers(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("run", [(0, 0), (1, 1)])
    assert [card["label"] == card["prediction"] for card in read_cards(folder / "mistakes.json")] == [True, True]
    page = (folder / "report.html").read_text("utf-8")
    assert "Right, but least sure" in page and "mistakes" not in page.partition("</header>")[0]


def test_a_picture_in_a_file_of_cards_is_nothing_but_a_jpeg(make_run: MakeRun) -> None:
    folder = make_run("run", [(0, 1)])
    card = read_cards(folder / "mistakes.json")[0]
    for address in ("https://example.org/a.jpg", 'data:image/jpeg;base64,AA" onerror="x', "data:text/html;base64,AA"):
        write_cards(folder / "mistakes.json", [{**card, "image": address}])
        with pytest.raises(Unreadable, match="rekindle report"):
            write_report(folder)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=5), st.floats(0.5, 4))
def test_confidences_at_one_follow_from_those_at_the_temperature(rows: list[tuple[int, ...]], temperature: float) -> None:
    logits = torch.tensor(rows) / 10
    answers = [{f"p_{name}": f"{float(p):.6f}" for name, p in zip("abc", row, strict=True)} for row in at_temperature(logits, temperature)]
    expected = at_temperature(logits, 1.0).amax(1).numpy()
    assert run_pictures._at_one(answers, list("abc"), temperature) == pytest.approx(expected, abs=0.005)


def test_a_further_picture_is_one_entry(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function and one entry: it is drawn, and stands on the page under its heading."""
    drawn = run_pictures.RunPicture("Support", "Pictures of each class.", "A bar a class", lambda run: figures.curves(run.history))
    monkeypatch.setitem(run_pictures.PICTURES, "support", drawn)
    folder = make_run("run", [(0, 0), (0, 1)])
    page = (folder / "report.html").read_text("utf-8")
    assert (folder / "support.svg").is_file()
    assert "<h2>Support</h2>" in page and 'alt="A bar a class"' in page and page.count("data:image/svg") == len(run_pictures.PICTURES) - 1


def test_the_samples_are_drawn_once_the_first_epoch_is_over(tmp_path: Path) -> None:
    drawn: list[tuple[int, bool]] = []
    data = picture_folder(tmp_path / "data", {"train": 4, "val": 2})

    class Looks(Silent):
        def step(self, epoch: int, *rest: Any) -> None:
            drawn.append((epoch, any(tmp_path.glob("runs/*/samples.png"))))

    options: dict[str, Any] = {"model": "tiny", "weights": "none", "epochs": 2, "lr": 0.05, "image_size": 16, "batch_size": 4}
    rekindle.fit(data, out=tmp_path / "runs", listener=Looks(), precision="32", **options)
    assert {done for epoch, done in drawn if epoch == 0} == {False} and {done for epoch, done in drawn if epoch == 1} == {True}
