"""What the commands have in common: how one is declared, its tables, and the progress bar. It loads no torch."""

import argparse
import dataclasses
import inspect
import io
import os
import re
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text


def prepare_output() -> None:
    """Let standard output take every text, so that no result is lost to an encoding.

    Files and pipes get UTF-8, with names of files as the file system has them; a terminal keeps its encoding, and shows what that
    lacks as escapes.
    """
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def drop_output() -> None:
    """Send to nowhere what is still to be written to a closed pipe, so that the interpreter does not fail on it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Notes(Console):
    """Standard error; a run goes on when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        """Fall silent."""
        self.quiet = True
        drop_output()


class _Results(Console):
    """Standard output; a closed pipe ends the command as it ends one that prints."""

    def on_broken_pipe(self) -> None:
        """Leave it to `rekindle.cli.main`."""
        raise BrokenPipeError


class ProgressBar:
    """Shows notes, the running epoch and a line for each finished one, on standard error.

    Args:
        quiet: Show nothing, as on all ranks but the first.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = _Notes(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
            console=self._console, transient=True, disable=quiet or not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None, text="", visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(text, markup=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the bar; elsewhere than on a terminal, a line at the end."""
        self._progress.update(self._task, description=what, total=total, completed=done, text=f"{done}/{total}", visible=True)
        if done == total and not self._console.is_terminal:
            self.note(f"{what}: {total} done.")

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Move the bar."""
        text = f"loss {loss:.3f}  accuracy {100 * accuracy:.1f} %  {rate:.0f} images/s  {timedelta(seconds=round(left))} left"
        self._progress.update(
            self._task,
            description=f"epoch {epoch + 1}/{epochs}",
            total=epochs * steps,
            completed=epoch * steps + step,
            text=text,
            visible=True,
        )

    def epoch(self, record: dict[str, Any]) -> None:
        """Print an epoch's line."""
        train, val = record["train"], record.get("val")
        mark = "  (head re-initialised)" if record["restarted"] else ""
        checked = f"validation loss {val['loss']:.3f} accuracy {100 * val['accuracy']:5.1f} %  " if val else ""
        self.note(
            f"epoch {record['epoch'] + 1:3d}  train loss {train['loss']:.3f} accuracy {100 * train['accuracy']:5.1f} %  "
            f"{checked}{record['timing']['images_per_second']:.0f} images/s{mark}"
        )


def add_command(parts: Any, name: str, text: str, example: str, more: str = "") -> argparse.ArgumentParser:
    """Declare a command or an action of one.

    Args:
        parts: What `add_subparsers` gave.
        name: What to type.
        text: Its line in the list of commands; as a sentence, the head of its own help.
        example: A whole command, or several with ";" between them.
        more: Further sentences for its own help.
    """
    sentence = f"{text[0].upper()}{text[1:]}."
    command: argparse.ArgumentParser = parts.add_parser(
        name, help=text, description=f"{sentence} {more}".strip(), epilog=f"example: {example}", allow_abbrev=False
    )
    command.set_defaults(command=command)
    add_debug(command)
    return command


def add_debug(command: argparse.ArgumentParser) -> None:
    """Give a command its `--debug`, which may also stand before the command's name."""
    command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error arose, before its sentence")


def add_json(command: Any, text: str = "JSON instead of text") -> None:
    """Give a command its `--json`."""
    command.add_argument("--json", action="store_true", help=text)


def add_tta(command: Any) -> None:
    """Give a command its `--tta`."""
    command.add_argument("--tta", action="store_true", help="average the answers for each picture and its mirror image; twice the work")


def add_columns(command: Any) -> None:
    """Give a command the options that name a table's columns."""
    for role, text in (("image", "paths or bytes of pictures"), ("label", "labels"), ("split", "train, validation or test")):
        command.add_argument(f"--{role}-column", default="auto", metavar="NAME", help=f"column of a table with {text} (default: auto)")


def asked_columns(options: argparse.Namespace) -> list[str]:
    """What was given to the options of `add_columns`; "" for each that is to be found."""
    return ["" if name == "auto" else name for name in (options.image_column, options.label_column, options.split_column)]


def option_texts(kind: type) -> dict[str, str]:
    """What a dataclass's docstring says of each option, continued lines joined; '%' doubled, as argparse wants it.

    Texts are empty where Python leaves docstrings out, as under -OO.
    """
    section = (inspect.getdoc(kind) or "").partition("Args:")[2]
    found = re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    texts = {name: " ".join(text.split()).rstrip(".").replace("%", "%%") for name, text in found}
    return {field.name: texts.get(field.name, "") for field in dataclasses.fields(kind)}


def table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table, its first column to the left and all others to the right."""
    made = Table(box=None, pad_edge=False)
    for index, name in enumerate(header):
        made.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    show(made)


def show(tables: Any) -> None:
    """Print tables on standard output."""
    console().print(tables)


def console() -> Console:
    """Standard output; a file or a pipe gets it wide enough for long names."""
    return _Results(width=None if sys.stdout.isatty() else 200)
