"""Say on each method's card what our board says of it: `python tools/board_cards.py`."""

import re
import textwrap
from pathlib import Path
from typing import Any

from rekindle.board.numbers import Board, board_of
from rekindle.board.row import read_rows
from rekindle.errors import number_of

ROOT = Path(__file__).resolve().parents[1]
BOARD, CARDS = ROOT / "docs/results/board", ROOT / "src/rekindle/methods/cards"
UNMEASURED = "Our result: not measured here."
SAID = re.compile(r" ?(?:Our result|Our board): [-+][^`]*`docs/results/board`\)\.")
WIDTH = 136


def sentences() -> dict[str, str]:
    """What each card says: {name of a method or direction: sentence}."""
    board = board_of(read_rows(BOARD))
    return {name: sentence(line, networks(board, line["method"])) for line in board.overall if (name := subject(line["method"]))}


def networks(board: Board, method: str) -> str:
    """On which networks, at which sizes, a method of the board was compared."""
    settings = {one.setting for one in board.standings if one.method == method and one.pair}
    sizes = sorted({(one.network.removeprefix("torchvision:"), one.image_size, one.per_class) for one in settings})
    return " and ".join(f"{network} at {pixels} pixels, {count} a class" for network, pixels, count in sizes)


def subject(label: str) -> str:
    """The method or direction that a label of the board is about: "rifle" of "l2+rifle", "pcgrad" of "l2_sp, pcgrad"; "" where it is about two."""
    recipe, _, direction = label.partition(", ")
    parts = [part for part in recipe.split("+") if part != "l2"]
    return direction or (parts[0] if len(parts) == 1 else "")


def sentence(line: dict[str, Any], where: str) -> str:
    """Of a line of `Board.overall`, and where it was measured."""
    interval = "" if line["low"] is None else f" (95 % interval {100 * line['low']:+.1f} to {100 * line['high']:+.1f})"
    tasks = f"in the mean of {number_of(line['tasks'], 'task')}"
    return (
        f"{100 * line['difference']:+.1f} points{interval} against plain fine-tuning at its best, {tasks} ({where}; `docs/results/board`)."
    )


def with_sentence(card: str, said: str) -> str:
    """A card whose first paragraph ends with it; one that was there before, or that nothing was measured, goes."""
    title, short, *rest = card.split("\n\n")
    plain = SAID.sub("", " ".join(short.split())).replace(UNMEASURED, "").rstrip()
    begun = "Our board" if "Our result:" in plain else "Our result"
    filled = textwrap.fill(f"{plain} {begun}: {said}", WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join([title, filled, *rest])


def main() -> None:
    """Rewrite the cards of all methods on the board."""
    for name, said in sentences().items():
        path = CARDS / f"{name}.md"
        path.write_text(with_sentence(path.read_text("utf-8"), said), "utf-8")


if __name__ == "__main__":
    main()
