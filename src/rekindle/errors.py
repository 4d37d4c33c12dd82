"""The exceptions that are meant for a person's eyes, and how a sentence shows values and lists names."""

import reprlib
import textwrap
from collections.abc import Sequence
from typing import Any

LETTERS = 120  # Of a value that a sentence shows.
REASON = 160  # Letters of an error of somebody else's code in a sentence.
IRREGULAR = {"is": "are", "was": "were", "has": "have", "does": "do", "its": "their", "it": "them", "that": "those"}


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
    """A value as one would type it, cut short where it is long or deep: a sentence must not grow with what it complains of.

    Returns:
        A text of a bounded length.

    Examples:
        >>> shown("resnet50"), shown([1, 2])
        ("'resnet50'", '[1, 2]')
    """
    try:
        return _CUT.repr(value)
    except (ValueError, RecursionError):  # More digits than Python turns into text, or an object that cannot be shown.
        return f"a value of type {type(value).__name__} that is too long to be shown"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a sentence; that of other code is cut after its first sentence, or where it is long.

    Returns:
        One line without its stop; the name of the error's class where it has no message.

    Examples:
        >>> first_line(RuntimeError("out of memory. Tried to allocate 2 GiB\\nat 0x7f")), first_line(AssertionError())
        ('out of memory', 'AssertionError')
    """
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not isinstance(error, UserError):
        line = textwrap.shorten(line.partition(". ")[0], REASON, placeholder=" ...")
    return line.rstrip(".:")


def shorter(text: str) -> str:
    """A text with its middle left out where it is longer than a sentence bears.

    Returns:
        A text of a bounded length.
    """
    return text if len(text) <= LETTERS else f"{text[: LETTERS // 2]}...{text[-LETTERS // 2 :]}"


_CUT = reprlib.Repr()
_CUT.maxlevel, _CUT.maxstring, _CUT.maxlong, _CUT.maxother = 4, LETTERS, LETTERS, LETTERS


def number_of(count: float, noun: str, verb: str = "") -> str:
    """A count, which may be infinite, with its noun and verb, both given as for one: "1 epoch", "2 epochs", "0 classes are".

    Returns:
        Such as "1 epoch" or "0 classes are".

    Examples:
        >>> number_of(1, "epoch"), number_of(2, "epoch"), number_of(0, "class", "is")
        ('1 epoch', '2 epochs', '0 classes are')
    """
    words = f"{count} {noun if count == 1 else _plural(noun)}"
    return f"{words} {agree(count, verb)}" if verb else words


def alternatives(counts: Sequence[int], noun: str) -> str:
    """Counts of which one holds at each place: "3 seeds", "1 or 3 seeds"; at least one, the largest last.

    Returns:
        Such as "1 or 3 seeds".

    Examples:
        >>> alternatives([3], "seed"), alternatives([1, 3], "seed")
        ('3 seeds', '1 or 3 seeds')
    """
    return " or ".join([*map(str, counts[:-1]), number_of(counts[-1], noun)])


def agree(count: float, word: str) -> str:
    """A verb or pronoun, given as for one thing, as it stands with so many: "is" or "are", "looks" or "look", "its" or "their".

    Returns:
        The word as it stands with the count.

    Examples:
        >>> agree(1, "is"), agree(2, "is"), agree(2, "its")
        ('is', 'are', 'their')
    """
    return word if count == 1 else IRREGULAR.get(word, word.removesuffix("s"))


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "sh", "tch")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else noun + "s"


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first few names and how many more.

    Returns:
        Such as "a, b and 3 more".

    Examples:
        >>> some(["a", "b"]), some(list("abcdefgh"), 3)
        ('a, b', 'a, b, c and 5 more')
    """
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
