"""Single pictures of a run with its answers, as its page shows them: the surest mistakes, or where there are none the least sure right answers.

They are kept in the run folder, so that the page can be written again when the data lie elsewhere.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from annotated_types import MaxLen
from pydantic import StringConstraints
from typing_extensions import TypedDict

from rekindle.data import Picture, Undecodable
from rekindle.data.check import thumbnail
from rekindle.files import embed
from rekindle.records import Answer, read_predictions
from rekindle.report.results import WORST, worst_mistakes
from rekindle.spec import Share
from rekindle.stored import FileFormat

THUMB = 112
FIRST = 6  # Of the first screen.
MOST = 200
Embedded = Annotated[str, StringConstraints(pattern=r"^data:image/jpeg;base64,[A-Za-z0-9+/=]*$")]


class Card(TypedDict):
    """A picture and what the network said of it.

    `heat` is the picture as the network sees it, with where that looked; a card has `image`, `heat` or both.
    """

    path: str
    label: str
    prediction: str
    confidence: Share
    image: NotRequired[Embedded]
    heat: NotRequired[Embedded]


class Cards(TypedDict):
    """A file of cards."""

    cards: Annotated[list[Card], MaxLen(MOST)]


CARDS = FileFormat(1, Cards, "write it again with rekindle report {folder}")


def notable_answers(folder: Path, split: str, limit: int) -> list[Answer]:
    """The surest mistakes; without any, the first screen's worth of right answers that were least sure.

    Returns:
        At most `limit` answers.
    """
    wrong = worst_mistakes(folder, split, limit)
    if wrong:
        return wrong
    return sorted(read_predictions(folder, split), key=lambda row: (float(row["confidence"]), row["path"]))[:FIRST]


def mistake_cards(folder: Path, split: str, find: Callable[[str], Picture]) -> list[Card]:
    """Cards of `notable_answers`; pictures that cannot be found or read any more are left out.

    Returns:
        One card an answer, in order.
    """
    found = []
    for row in notable_answers(folder, split, WORST):
        try:
            image = embed(thumbnail(find(row["path"]), THUMB))
        except (Undecodable, OSError, KeyError):
            continue
        found.append(card_of(row, image=image))
    return found


def card_of(row: Answer, **pictures: str) -> Card:
    """A card of an answer, with `image` and `heat` as far as they are given.

    Returns:
        What a page shows of one picture.
    """
    card: Any = {"path": row["path"], "label": row["label"], "prediction": row["prediction"], "confidence": float(row["confidence"])}
    card |= pictures
    found: Card = card
    return found


def write_cards(path: Path, cards: Sequence[Card]) -> None:
    """Keep cards in a run folder."""
    CARDS.write(path, {"cards": list(cards)})


def read_cards(path: Path) -> list[Card]:
    """Cards of a run folder; none where it has no such file.

    Returns:
        Cards, in the order of the page.
    """
    return CARDS.read(path)["cards"] if path.is_file() else []
