"""Who watches a run: the protocol, and one who does not look. It loads neither torch nor Lightning."""

from pathlib import Path
from typing import Any, Protocol


class Listener(Protocol):
    """Who watches a run, such as a progress bar."""

    def note(self, text: str) -> None:
        """A sentence worth reading."""

    def progress(self, what: str, done: int, total: int) -> None:
        """What goes on before training, and how far it is."""

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """After a step: running loss and accuracy of the epoch, images per second, seconds left in the run."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After an epoch: its line of metrics.jsonl."""


def tell_caution(listener: Listener, text: str) -> None:
    """Tell what to know of a finished run. A listener may have a method `caution` for it; else it is a note."""
    tell = getattr(listener, "caution", None)
    if tell is None:
        listener.note(f"caution: {text}")
    else:
        tell(text)


def tell_began(listener: Listener, folder: Path, settings: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Tell a listener that has a method `began` of a run before its first step: its folder, settings, and lines of epochs that are done."""
    if (tell := getattr(listener, "began", None)) is not None:
        tell(folder, settings, history)


def tell_ended(listener: Listener, result: dict[str, Any]) -> None:
    """Tell a listener that has a method `ended` what result.json holds."""
    if (tell := getattr(listener, "ended", None)) is not None:
        tell(result)


class Relay:
    """A listener that passes everything on to another; its heirs say what they do beside that.

    Args:
        listener: The other.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def note(self, text: str) -> None:
        """Pass on."""
        self._listener.note(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Pass on."""
        self._listener.progress(what, done, total)

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Pass on."""
        self._listener.step(epoch, epochs, step, steps, loss, accuracy, rate, left)

    def epoch(self, record: dict[str, Any]) -> None:
        """Pass on."""
        self._listener.epoch(record)

    def caution(self, text: str) -> None:
        """Pass on."""
        tell_caution(self._listener, text)

    def began(self, folder: Path, settings: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Pass on."""
        tell_began(self._listener, folder, settings, history)

    def ended(self, result: dict[str, Any]) -> None:
        """Pass on."""
        tell_ended(self._listener, result)


class Silent:
    """A listener that looks away."""

    def note(self, text: str) -> None:
        """Nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def step(self, *values: Any) -> None:
        """Nothing."""

    def epoch(self, record: dict[str, Any]) -> None:
        """Nothing."""
