"""Files that are written whole or not at all. It loads no torch."""

import base64
import csv
import io
import itertools
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rekindle.errors import UserError, number_of

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# A list of numbers that is spread over lines. Inside a text of JSON no line ends, so that none is mistaken for one.
NUMBERS = re.compile(r"\[\n\s*([-+.0-9eE,\s]+?)\s*\]")
MOST_REASON = 300  # Letters of what a reader of YAML complains of.
MOST_YAML = 2**20  # Bytes; what people write by hand has some thousands.
TEMPORARY_BYTES = 100  # Of a file's name that its temporary one keeps, since a name may be as long as the file system takes.


def expand(path: str | Path) -> Path:
    """A path with the user's folder in place of a leading `~`; as it stands where the user has none.

    Returns:
        A path, which need not exist.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_atomic(path: Path, *content: bytes | memoryview | str) -> None:
    """Put the parts of `content` at `path` whole or not at all, also when the machine stops in the middle of it."""
    write_parts(path, content)


def write_parts(path: Path, content: Iterable[bytes | memoryview | str]) -> None:
    """`write_atomic` of parts that are made one after the other, of which no more is in memory than one."""
    name = path.name.encode("utf-8", "surrogateescape")[:TEMPORARY_BYTES].decode("utf-8", "ignore")
    # Nobody can guess the name, and "x" opens no file or link that is there already.
    temporary = path.with_name(f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.writelines(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of `write_atomic`; only for whoever is the only one to write there.

    Args:
        folder: Where files were written; it need not exist.
        name: Of the file that was written.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        with suppress(OSError):
            path.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read, each list of plain numbers on one line; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


def read_yaml(path: Path) -> Any:
    """What a person's YAML file holds.

    Returns:
        Plain values: mappings, lists, texts, numbers, None.

    Raises:
        UserError: Naming the file and why it cannot be read.
    """
    import yaml  # Only here: --help needs none.

    try:
        if not path.is_file():
            raise UserError(f"there is no file {path}." if not path.exists() else f"{path} is no ordinary file.")
        if path.stat().st_size > MOST_YAML:
            raise UserError(
                f"{path} has {number_of(path.stat().st_size, 'byte')}, more than the {MOST_YAML} that a YAML file may have here."
            )
        return yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        reason = str(error)
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # From its readers of dates, numbers and texts.
        if isinstance(error, UserError):
            raise
        reason = f"a value in it is none of its kind: {error}"
    except RecursionError:
        reason = "its values are nested too deep"
    raise UserError(f"{path} cannot be read as YAML: {' '.join(reason.split())[:MOST_REASON]}")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file's text, one line a row; no text in it is a formula to a spreadsheet. `plain_text` undoes that.

    Returns:
        The whole file's text, its line ends included.

    Examples:
        >>> csv_text(["name", "count"], [["=1+1", 3]]).splitlines()
        ['name,count', "'=1+1,3"]
    """
    return "".join(csv_lines(header, rows))


def csv_lines(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """The lines of `csv_text`, each made when it is asked for.

    Yields:
        Lines, each with its line end.
    """
    return map(_csv_line, itertools.chain([header], rows))


def _csv_line(row: Iterable[Any]) -> str:
    """A row as CSV. The writer puts quotes around a text that holds a character of its line end, so it must have both of them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([safe_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().removesuffix("\r\n") + "\n"


def read_csv(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file that `csv_text` made: {column: text}.

    Returns:
        One mapping a row, in order; every value is a text.
    """
    return list(csv_rows(path))


def csv_rows(path: Path, columns: Collection[str] | None = None) -> Iterator[dict[str, str]]:
    """The rows of a CSV file that `csv_lines` made, one after the other: {column: text}.

    Args:
        path: The file.
        columns: Those to read, of maybe thousands; None reads all.

    Yields:
        One mapping a row; every value is a text.

    Raises:
        ValueError: At a row that has not a cell for each column.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = [plain_text(name) for name in next(rows, [])]
        wanted = [(place, name) for place, name in enumerate(header) if columns is None or name in columns]
        for row in rows:
            if row and len(row) != len(header):
                raise ValueError(f"a row has {number_of(len(row), 'cell')} where the header has {number_of(len(header), 'column')}")
            if row:
                yield {name: plain_text(row[place]) for place, name in wanted}


def safe_text(text: str) -> str:
    """A cell's text with an apostrophe before it where a spreadsheet would run it as a formula; numbers stay.

    Returns:
        A text that a spreadsheet shows and does not run.

    Examples:
        >>> safe_text("=HYPERLINK()"), safe_text("-1.5"), safe_text("dress")
        ("'=HYPERLINK()", '-1.5', 'dress')
    """
    return f"'{text}" if _is_formula(text) else text


def plain_text(cell: str) -> str:
    """The text that `safe_text` made a cell of.

    Returns:
        The text as it was.

    Examples:
        >>> plain_text(safe_text("=HYPERLINK()"))
        '=HYPERLINK()'
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    """Whether a text, after apostrophes, begins as a formula does and is no number."""
    if not text.lstrip("'").startswith(FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return text[0] in "\t\r\n"


def drop_output(*streams: TextIO) -> None:
    """Send to nowhere what is still to be written to a closed pipe, so that the interpreter does not fail on it at its end."""
    for stream in streams:
        try:
            stream.flush()
        except BrokenPipeError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def embed(picture: bytes, kind: str = "jpeg") -> str:
    """A picture, encoded as `kind` says, as the address by which a page holds it whole.

    Returns:
        An address that begins with "data:".
    """
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
