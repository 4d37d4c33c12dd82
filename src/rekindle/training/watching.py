"""Who watches a run that a Python program starts: a bar where a person looks, and the log in any case."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rekindle.training.listener import Listener, Relay, Silent
from rekindle.training.notebook import NotebookBar, in_notebook
from rekindle.training.progress import ProgressBar

LOG = logging.getLogger("rekindle")
LOG.addHandler(logging.NullHandler())  # Else Python would print cautions of programs that have set up no log.


class Watcher(Relay):
    """Passes all on, and notes and cautions into the log too.

    Attributes:
        cautions: Those that were not passed on, and are to become warnings.
    """

    def __init__(self, listener: Listener, warns: bool) -> None:
        super().__init__(listener)
        self._warns = warns
        self.cautions: list[str] = []

    def note(self, text: str) -> None:
        """Pass on a sentence."""
        LOG.info(text)
        super().note(text)

    def caution(self, text: str) -> None:
        """Pass on a caution, or keep it."""
        LOG.warning(text)
        if self._warns:
            self.cautions.append(text)
        else:
            super().caution(text)


@contextmanager
def watching(listener: Listener | None) -> Iterator[Watcher]:
    """Whom a run tells: the one that was given, or else a bar on a terminal or in a notebook, whose cautions are to become warnings.

    Yields:
        The listener to tell.
    """
    if listener is not None:
        yield Watcher(listener, warns=False)
        return
    with _shown() as bar:
        yield Watcher(bar, warns=True)


def _shown() -> "AbstractContextManager[Listener]":
    if in_notebook():
        return NotebookBar()
    if sys.stderr is not None and sys.stderr.isatty():
        return ProgressBar(quiet=os.environ.get("LOCAL_RANK", "0") != "0")
    return nullcontext(Silent())
