"""The exceptions that are meant for a person's eyes, and how a sentence lists names."""

from collections.abc import Sequence


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


class Stopped(Exception):
    """The user or the system asked the run to stop; its state is saved."""


def some(names: Sequence[str], shown: int = 5) -> str:
    """The first few names and how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
