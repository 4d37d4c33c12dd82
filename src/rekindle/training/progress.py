"""A progress bar for terminals, which writes plain lines into files and pipes. It loads no torch."""

import sys
import textwrap
import time
from datetime import timedelta
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn

from rekindle.files import drop_output
from rekindle.training.epoch_table import EpochTable

SLOW, EVERY = 3.0, 10.0  # Seconds after which a file or a pipe gets a line about what goes on, and between two of them.


class _Notes(Console):
    """Standard error; a run goes on when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Fall silent."""
        self.quiet = True
        drop_output(sys.stdout, sys.stderr)


class _Turning(SpinnerColumn):
    """Turns also when the bar is full: what comes after may take seconds."""

    def render(self, task: Task) -> RenderableType:
        """The spinner."""
        return self.spinner.render(task.get_time())


class ProgressBar:
    """Shows notes, what goes on, the running epoch, and a table of the finished ones, on standard error.

    Args:
        quiet: Show nothing, as on all ranks but the first.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = _Notes(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._progress = Progress(
            _Turning("line"), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
            console=self._console, transient=True, disable=quiet or not self._live,
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=None, text="")
        self._epochs, self._pace = EpochTable(), _Pace()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._epochs.interrupt()
        self._print(wrapped(text, self._console.width) if self._console.is_terminal else text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar; elsewhere than on a terminal, a line now and then about what is slow."""
        self._progress.update(self._task, description=what, total=total, completed=done, text=f"{done}/{total}")
        if not self._live and (line := self._pace.line(what, done, total)):
            self.note(line)

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Move the bar."""
        text, done = step_text(loss, accuracy, rate, left), epoch * steps + step
        self._progress.update(self._task, description=f"epoch {epoch + 1}/{epochs}", total=epochs * steps, completed=done, text=text)

    def epoch(self, record: dict[str, Any]) -> None:
        """Print an epoch's line."""
        self._print("\n".join(self._epochs.lines(record)))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)


class _Pace:
    """When to write a line about something slow: after some seconds, then now and then, and at its end."""

    def __init__(self) -> None:
        self._what, self._began, self._told = "", 0.0, 0.0

    def line(self, what: str, done: int, total: int) -> str:
        """What to write now, or ""."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._told = what, now, now - EVERY + SLOW
        if done == total:
            self._what = ""
            return f"{what}: {total} done." if now - self._began >= SLOW else ""
        if now - self._told < EVERY:
            return ""
        self._told = now
        return f"{what}: {done} of {total} ..."


def step_text(loss: float, accuracy: float, rate: float, left: float) -> str:
    """The running epoch in words, beside a bar.

    Returns:
        Text of one line.
    """
    return f"loss {loss:.3f}  accuracy {100 * accuracy:.1f} %  {rate:.0f} pictures/s  {timedelta(seconds=round(left))} left"


def wrapped(text: str, width: int, hanging: str = "") -> str:
    """A text in lines of a width, broken between words alone, so that paths can be copied; `hanging` stands before those that go on.

    Returns:
        Lines joined by line breaks.

    Examples:
        >>> print(wrapped("a text of several words", 10))
        a text of
        several
        words
    """
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, subsequent_indent=hanging).wrap
    lines = [wrap(line) or [""] for line in text.splitlines()]
    return "\n".join(part for line in lines for part in line)
