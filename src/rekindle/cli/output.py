"""What the commands have in common: how one is declared, and its tables. It loads no torch."""

import argparse
import dataclasses
import inspect
import io
import re
import shutil
import sys
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rekindle.training.progress import wrapped


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


class _Results(Console):
    """Standard output; a closed pipe ends the command as it ends one that prints."""

    def on_broken_pipe(self) -> None:
        """Leave it to `rekindle.cli.main`."""
        raise BrokenPipeError


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


def table(header: list[str], rows: list[list[str]], words: Collection[str] = ()) -> None:
    """Print a table, its first column and those of `words` to the left, and all others, of numbers, to the right."""
    made = Table(box=None, pad_edge=False)
    for index, name in enumerate(header):
        made.add_column(name, justify="left" if index == 0 or name in words else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    show(made)


def say(text: str, hanging: str = "") -> None:
    """Print a text on standard output, on a terminal in lines of its width, with `hanging` before those that go on."""
    print(wrapped(text, shutil.get_terminal_size().columns, hanging) if sys.stdout.isatty() else text)


def show(tables: Any) -> None:
    """Print tables on standard output."""
    console().print(tables)


def console() -> Console:
    """Standard output; a file or a pipe gets it wide enough for long names."""
    return _Results(width=None if sys.stdout.isatty() else 200)
