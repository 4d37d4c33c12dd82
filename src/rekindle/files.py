"""Files that are written whole or not at all. It loads no torch."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

TEMPORARY_BYTES = 100  # Of a file's name that its temporary one keeps, since a name may be as long as the file system takes.


def expand(path: str | Path) -> Path:
    """A path with the user's folder in place of a leading `~`; as it stands where the user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Put `content` at `path` whole or not at all, also when the machine stops in the midst of it."""
    name = path.name.encode("utf-8", "surrogateescape")[:TEMPORARY_BYTES].decode("utf-8", "ignore")
    temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file's text, one line a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
