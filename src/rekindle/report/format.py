"""Durations, shares, p-values, splits and names as people read them. It loads no torch."""

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

SPLIT_TITLES = {"val": "validation", "watched_test": "test"}


def duration(seconds: float) -> str:
    """40 s, 12 min or 3.5 h.

    Returns:
        Such as "40 s", "12 min" or "3.5 h".

    Examples:
        >>> duration(40), duration(720), duration(12600)
        ('40 s', '12 min', '3.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] as a percentage without its sign, or "-" where there is none.

    Returns:
        Such as "78.5", or "-".

    Examples:
        >>> percent(0.785), percent(0.785, 1), percent(None)
        ('78.50', '78.5', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f}"


def p_value(p: float | None) -> str:
    """A p-value to three digits, or "-" where there is none.

    Returns:
        Such as "0.012", "< 0.001" or "-".

    Examples:
        >>> p_value(0.0123), p_value(0.00001), p_value(None)
        ('0.012', '< 0.001', '-')
    """
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def split_title(split: str) -> str:
    """The split's name for people.

    Returns:
        Such as "validation".

    Examples:
        >>> split_title("val"), split_title("test")
        ('validation', 'test')
    """
    return SPLIT_TITLES.get(split, split)


def place_name(place: str) -> str:
    """The last part of a path, which says enough where the whole is one person's; hf:NAME stays whole.

    Returns:
        A name without slashes, but for hf:NAME.

    Examples:
        >>> place_name("/data/photos/"), place_name("hf:user/photos")
        ('photos', 'hf:user/photos')
    """
    return place if place.startswith("hf:") else Path(place).name or place


def short(text: str, width: int) -> str:
    """Cut to a width in columns; Chinese, Japanese and Korean letters take two.

    Returns:
        The text, at most `width` columns wide.

    Examples:
        >>> short("a name that is long", 10), short("short", 10)
        ('a name th…', 'short')
    """
    text = " ".join(text.split())
    used = 0
    for end, letter in enumerate(text):
        used += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used > width:
            return text[: end - 1].rstrip() + "…"
    return text


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[str]) -> str:
    """A table in GitHub's Markdown.

    Args:
        header: Names of the columns.
        rows: Cells, which are Markdown already.
        words: Names of columns that hold words, and stand to the left; the others are numbers.

    Returns:
        Lines joined by line breaks.

    Examples:
        >>> print(markdown_table(["task", "mean"], [["clothes", "70.4"]], ["task"]))
        | task | mean |
        | --- | ---: |
        | clothes | 70.4 |
    """
    lines = [[escape(name) for name in header], ["---" if name in words else "---:" for name in header], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Text as a Markdown table cell holds it: no bar, line break or mark-up of its own.

    Returns:
        Text for one cell.
    """
    text = " ".join(text.split())
    return "".join("\\" + letter if letter in "\\|*_`<[" else letter for letter in text)
