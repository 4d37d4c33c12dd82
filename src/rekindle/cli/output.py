"""What the commands have in common: how one is declared, and its tables. It loads no torch."""

import argparse
import dataclasses
import inspect
import io
import re
import shutil
import sys
from collections.abc import Collection, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rekindle.training.progress import wrapped

GAP = 2  # Columns between two of a table.
LEAST_NAME, SENTENCE = 8, 20  # The least that a name is cut to, and that a sentence has room for.


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

    Returns:
        Its parser, to add options to.
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
    """What was given to the options of `add_columns`; "" for each that is to be found.

    Returns:
        One text a column.
    """
    return ["" if name == "auto" else name for name in (options.image_column, options.label_column, options.split_column)]


def option_texts(kind: type) -> dict[str, str]:
    """What a dataclass's docstring says of each option, continued lines joined; '%' doubled, as argparse wants it.

    Texts are empty where Python leaves docstrings out, as under -OO.

    Returns:
        Texts by the name of the option.
    """
    section = (inspect.getdoc(kind) or "").partition("Args:")[2]
    found = re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    texts = {name: " ".join(text.split()).rstrip(".").replace("%", "%%") for name, text in found}
    return {field.name: texts.get(field.name, "") for field in dataclasses.fields(kind)}


def table(header: list[str], rows: list[list[str]], words: Collection[str] = (), names: Collection[str] = ()) -> None:
    """Print a table; what is told of its columns stands at `drawn`. In a file or a pipe every name is whole."""
    shown = console()
    natural = sum(max(map(cell_len, column)) + GAP for column in zip(header, *rows, strict=True))
    shown.width = shown.width if sys.stdout.isatty() else max(shown.width, natural)
    shown.print(drawn(header, rows, shown.width, words, names))


def drawn(
    header: list[str], rows: Sequence[Sequence[str | Text]], width: int, words: Collection[str] = (), names: Collection[str] = ()
) -> Table:
    """A table for a terminal.

    Args:
        header: The columns' names. All columns but those below are of numbers, to the right.
        rows: A cell for each.
        width: The terminal's columns.
        words: Columns of sentences, which go on in the next line.
        names: Columns of names and paths beside the first, which is one. Where they do not fit, the widest lose their middles.

    Returns:
        A table that `console` prints.
    """
    names = {header[0], *names}
    wide = dict(zip(header, (max(cell_len(str(cell)) for cell in column) for column in zip(header, *rows, strict=True)), strict=True))
    needed = sum(min(length, SENTENCE) if name in words else length for name, length in wide.items()) + GAP * (len(wide) - 1)
    while needed > width and wide[widest := max(names, key=wide.__getitem__)] > LEAST_NAME:
        wide[widest], needed = wide[widest] - 1, needed - 1
    made = Table(box=None, pad_edge=False)
    for name in header:
        title = _cell(name, wide[name] if name in names else None)
        made.add_column(title, justify="left" if name in names or name in words else "right", no_wrap=name in names, overflow="fold")
    for row in rows:
        made.add_row(*(_cell(cell, wide[name] if name in names else None) for name, cell in zip(header, row, strict=True)))
    return made


def _cell(cell: str | Text, width: int | None) -> Text:
    """A cell; of a name that is longer than `width` both ends."""
    if isinstance(cell, Text):
        return cell
    return Text(cell if width is None or cell_len(cell) <= width else middle_cut(cell, width))


def middle_cut(text: str, width: int) -> str:
    """Beginning and end of a text with an ellipsis between, in so many columns of a terminal.

    Returns:
        A text of at most `width` columns.
    """
    tail = width // 2
    return set_cell_size(text, width - 1 - tail).rstrip() + "…" + set_cell_size(text[::-1], tail)[::-1].lstrip()


def say(text: str, hanging: str = "") -> None:
    """Print a text on standard output, on a terminal in lines of its width, with `hanging` before those that go on."""
    print(wrapped(text, shutil.get_terminal_size().columns, hanging) if sys.stdout.isatty() else text)


def show(tables: Any) -> None:
    """Print tables on standard output."""
    console().print(tables)


def console() -> Console:
    """Standard output; a file or a pipe gets it wide enough for long names.

    Returns:
        A console of rich.
    """
    return _Results(width=None if sys.stdout.isatty() else 200)
