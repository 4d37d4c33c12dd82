"""Cards say what our board says, which holds enough runs to say it."""

import pytest

from rekindle.board.numbers import board_of
from rekindle.board.row import read_rows
from tools.board_cards import BOARD, CARDS, sentences, subject, with_sentence


def test_the_board_has_its_rows_and_pages() -> None:
    rows = read_rows(BOARD)
    assert len(rows) >= 200 and len({row["task"] for row in rows}) >= 6
    board = board_of(rows)
    assert board.overall and not board.notes
    assert (BOARD / "board.md").is_file() and (BOARD / "board.html").is_file()


@pytest.mark.parametrize("name", sorted(sentences()))
def test_a_card_says_what_the_board_says(name: str) -> None:
    card = (CARDS / f"{name}.md").read_text("utf-8")
    assert sentences()[name] in " ".join(card.split("\n\n")[1].split())
    assert with_sentence(card, sentences()[name]) == card


def test_a_sentence_replaces_the_one_before() -> None:
    card = "# m: t\n\n**In short.** Use when. Our result: not measured here.\n\n**What it does.** x\n"
    once = with_sentence(card, "+0.1 points, in the mean of 6 tasks (a network; `docs/results/board`).")
    assert "not measured" not in once and once.endswith("**What it does.** x\n")
    assert with_sentence(once, "+0.2 points, in the mean of 6 tasks (a network; `docs/results/board`).").count("docs/results/board") == 1


@pytest.mark.parametrize(
    ("label", "name"), [("l2+rifle", "rifle"), ("l2_sp", "l2_sp"), ("l2_sp, pcgrad", "pcgrad"), ("l2+rifle+sam", ""), ("l2", "")]
)
def test_what_a_label_is_about(label: str, name: str) -> None:
    assert subject(label) == name
