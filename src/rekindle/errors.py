"""The exceptions that are meant for a person's eyes, and how a sentence shows values and lists names."""

import reprlib
from collections.abc import Sequence
from typing import Any

LETTERS = 120  # Of a value that a sentence shows.


class UserError(ValueError):
    """Bad input: one sentence that says what was found, what is allowed, and what to type instead.

    The command prints it alone, without a traceback, and exits with status 2.
    """


class Diverged(UserError):
    """A loss, the network's outputs or its weights are no longer finite numbers."""


class Busy(UserError):
    """Another command works at this moment where this one wants to; the command exits with status 1."""


class Unreadable(UserError):
    """A file of rekindle's own that is damaged, foreign or of a later version; the command exits with status 1."""


class Later(Unreadable):
    """A file of rekindle's own that a later version wrote; it is no damage, so nothing may be written over it."""


class RekindleWarning(UserWarning):
    """A caution about a run that a Python program started: its result is worth a second look before it is used."""


class Stopped(Exception):
    """The user or the system asked the run to stop; its state is saved."""


def shown(value: Any) -> str:
    """A value as one would type it, cut short where it is long or deep: a sentence must not grow with what it complains of."""
    try:
        return _CUT.repr(value)
    except (ValueError, RecursionError):  # More digits than Python turns into text, or an object that cannot be shown.
        return f"a value of type {type(value).__name__} that is too long to be shown"


def shorter(text: str) -> str:
    """A text with its middle left out where it is longer than a sentence bears."""
    return text if len(text) <= LETTERS else f"{text[: LETTERS // 2]}...{text[-LETTERS // 2 :]}"


_CUT = reprlib.Repr()
_CUT.maxlevel, _CUT.maxstring, _CUT.maxlong, _CUT.maxother = 4, LETTERS, LETTERS, LETTERS


def number_of(count: int, noun: str) -> str:
    """A count with its noun, in the plural but for one: "1 epoch", "2 epochs", "3 classes"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first few names and how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
