"""What a run shows in a notebook: one output that is renewed as the run goes on. It loads no torch."""

import html
import sys
import time
from collections.abc import Callable
from typing import Any, Self

from rekindle.training.epoch_table import EpochTable
from rekindle.training.progress import step_text

EVERY = 0.25  # Seconds between two renewals by what only moves the bar.
PAGE = """<pre style="white-space: pre-wrap">{lines}</pre>"""
BAR = """<div><progress value="{done}" max="{total}" style="width: 20em"></progress> {text}</div>"""


def in_notebook() -> bool:
    """Whether this program is the kernel of a notebook, such as Jupyter's or Colab's.

    Returns:
        True inside Jupyter's or Colab's kernel.
    """
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """Shows notes, what goes on, and a table of the finished epochs, in the output of a notebook's cell."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bar = BAR.format(done=0, total=1, text="starting")
        self._epochs, self._next = EpochTable(), 0.0
        self._renew: Callable[..., object] | None = None

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar = ""
        self._show()

    def note(self, text: str) -> None:
        """Add a sentence."""
        self._epochs.interrupt()
        self._lines.append(text)
        self._show()

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar."""
        self._move(done, total, f"{what} {done}/{total}")

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Move the bar."""
        self._move(epoch * steps + step, epochs * steps, f"epoch {epoch + 1}/{epochs}  {step_text(loss, accuracy, rate, left)}")

    def epoch(self, record: dict[str, Any]) -> None:
        """Add an epoch's line."""
        self._lines += self._epochs.lines(record)
        self._show()

    def _move(self, done: int, total: int, text: str) -> None:
        self._bar = BAR.format(done=done, total=max(1, total), text=html.escape(text))
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        page = {"text/html": PAGE.format(lines=html.escape("\n".join(self._lines))) + self._bar, "text/plain": "\n".join(self._lines)}
        if self._renew is None:
            self._renew = display(page, raw=True, display_id=True).update
        else:
            self._renew(page, raw=True)
