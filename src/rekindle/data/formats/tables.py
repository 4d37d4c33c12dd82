"""Tables of labelled pictures: CSV and TSV files of paths, Parquet files of paths or encoded bytes."""

import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.data.formats.columns import WORDS, ColumnNames, ResolvedColumns, choose
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture, TableImage, read_file
from rekindle.data.formats.names import printable
from rekindle.data.formats.table_rows import TableRow, as_label, as_split, gather
from rekindle.data.splits import FoundData
from rekindle.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TEXTS, PARQUETS = (".csv", ".tsv"), (".parquet", ".pq")
ENDINGS = (*TEXTS, *PARQUETS)
SEPARATORS = ",;\t"
SHARD = re.compile(r"(?P<word>[a-z]+)(-\d+-of-\d+)?", re.IGNORECASE)
UNCLOSED = re.compile(r"EOF inside string starting at row (\d+)")
GROUPS_KEPT = 4
_reading = threading.Lock()


def is_table(path: Path) -> bool:
    """Whether a name ends as a table's does."""
    return path.suffix.lower() in ENDINGS


def tables_in(folder: Path) -> dict[str, list[Path]]:
    """{split: tables} of a folder that holds train.csv or train.parquet, also in numbered parts; empty if it holds none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = SHARD.fullmatch(path.stem)
        if is_table(path) and match and match["word"].lower() in WORDS and path.is_file():
            found.setdefault(WORDS[match["word"].lower()], []).append(path)
    return found if "train" in found else {}


def survey(path: Path, asked: ColumnNames) -> FoundData:
    """Classes and pictures of a table, or of a folder of tables that are named as their splits.

    Raises:
        UserError: If a table cannot be read, or its columns are not clear.
    """
    if path.is_file():
        found, root = {"": [path]}, path.parent
    else:
        found, root = tables_in(path), path
        if asked.split:
            raise UserError(
                f"{path} holds a table for each split ({', '.join(found)}), so --split-column {asked.split} has no meaning; leave it out."
            )
    findings = Findings(path)
    rows: list[TableRow] = []
    names: list[str] | None = None
    choices: dict[str, str] = {}
    bare = path.is_file()
    for split, parts in found.items():
        for part in parts:
            table = _open(part, asked)
            if names not in (None, table.names):
                raise UserError(
                    f"{part} names other classes ({', '.join(table.names or [])}) than the tables before it ({', '.join(names or [])})."
                )
            names, choices = table.names, table.columns.choices()
            if split and table.columns.split:
                findings.notes.append(f"{part}: its column {table.columns.split} is not read, since each split has a table of its own.")
            bare = bare and not table.columns.split
            rows += table.rows(root, split, findings)
    found_here = gather(root, rows, names, findings, bare)
    found_here.choices.update(choices)
    return found_here


@dataclass
class _Text:
    """A CSV or TSV file: `frame` holds text, its index the row numbers that a spreadsheet shows."""

    path: Path
    frame: "pd.DataFrame"
    columns: ResolvedColumns
    broken: list[str]
    names: None = None

    def rows(self, root: Path, split: str, findings: Findings) -> Iterator[TableRow]:
        findings.problems += self.broken
        where = [f"{self.path.name} row {number}" for number in self.frame.index]
        frame = self.frame
        splits = frame[self.columns.split] if self.columns.split and not split else [split or "train"] * len(frame)
        yield from _rows(where, _files(root, where, frame[self.columns.image], findings), frame[self.columns.label], splits, findings)


@dataclass
class _Parquet:
    """A Parquet file; only its labels and splits are read at once."""

    path: Path
    schema: "pa.Schema"
    columns: ResolvedColumns
    names: list[str] | None

    def rows(self, root: Path, split: str, findings: Findings) -> Iterator[TableRow]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kind = self.schema.field(self.columns.image).type
        holds_paths = _is_text(kind)
        if not holds_paths and not _is_picture(kind):
            raise UserError(f"{self.path}: column {self.columns.image} holds {kind}; wanted are paths (text) or encoded pictures (binary).")
        kind = self.schema.field(self.columns.label).type
        if pa.types.is_nested(kind) or pa.types.is_temporal(kind) or _is_bytes(kind):
            raise UserError(f"{self.path}: column {self.columns.label} holds {kind}; wanted are labels as text or integers.")
        wanted = [
            self.columns.label,
            *([self.columns.split] if self.columns.split and not split else []),
            *([self.columns.image] if holds_paths else []),
        ]
        table = pq.read_table(self.path, columns=wanted)
        where = [f"{self.path.name}[{number}]" for number in range(table.num_rows)]
        pictures: list[Picture | None]
        if holds_paths:
            pictures = _files(root, where, table[self.columns.image].to_pylist(), findings)
        else:
            column = ParquetColumn(self.path, self.columns.image, self.path.stat().st_mtime_ns)
            pictures = [TableImage(name, column, number) for number, name in enumerate(where)]
        splits = table[self.columns.split].to_pylist() if self.columns.split and not split else [split or "train"] * table.num_rows
        yield from _rows(where, pictures, table[self.columns.label].to_pylist(), splits, findings)


def _open(path: Path, asked: ColumnNames) -> "_Text | _Parquet":
    return _open_text(path, asked) if path.suffix.lower() in TEXTS else _open_parquet(path, asked)


def _rows(where: Sequence[str], pictures: Sequence[Picture | None], labels: Any, splits: Any, findings: Findings) -> Iterator[TableRow]:
    for place, picture, label, word in zip(where, pictures, labels, splits, strict=True):
        split = as_split(word)
        if split is None:
            shown = "no split" if word is None or not str(word).strip() else f"split {str(word).strip()!r} is unknown"
            findings.problems.append(printable(f"{place}: {shown}; use train, val or test"))
        yield TableRow(place, picture if split else None, as_label(label), split or "train")


def _files(root: Path, where: Sequence[str], cells: Any, findings: Findings) -> list[Picture | None]:
    """The picture files that cells name, from the table's folder; None where there is a problem."""
    found: list[Picture | None] = []
    outside = 0
    base = os.path.abspath(root)
    for place, cell in zip(where, cells, strict=True):
        text = "" if cell is None else str(cell).strip()
        file = os.path.normpath(os.path.join(base, text))
        if not os.path.exists(file) and "\\" in text:
            file = os.path.normpath(os.path.join(base, text.replace("\\", "/")))
        inside = file.startswith(base + os.sep)
        problem = _file_problem(text, file, inside, root)
        if problem:
            findings.problems.append(printable(f"{place}: {problem}"))
        outside += not problem and not inside
        found.append(None if problem else root / os.path.relpath(file, base) if inside else Path(file))
    if outside:
        findings.notes.append(
            f"{findings.root}: {outside} pictures lie outside {root}, by absolute paths; the table cannot move without them."
        )
    return found


def _file_problem(text: str, file: str, inside: bool, root: Path) -> str:
    if not text:
        return "no picture; fill it in or remove the row"
    if not inside and not os.path.isabs(text):
        return f"{text} leads out of {root}; write an absolute path if that is meant"
    if os.path.isdir(file):
        return f"{text} is a folder; name a picture file"
    if not os.path.isfile(file):
        return f"there is no file {text}"
    return ""


def _open_text(path: Path, asked: ColumnNames) -> _Text:
    """Read a CSV or TSV file: UTF-8 with or without a mark, any line ends, separated by comma, semicolon or tab."""
    import pandas as pd

    try:
        text = path.read_text("utf-8-sig")
        if not text.strip():
            raise pd.errors.EmptyDataError
        separator = max(SEPARATORS, key=text.partition("\n")[0].count)
        # The header decides how many cells a row has, the longest line how many are looked for.
        widest = 1 + max(line.count(separator) for line in text.splitlines() or [""])
        frame = pd.read_csv(
            StringIO(text),
            sep=separator,
            header=None,
            names=range(widest),
            index_col=False,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it again as CSV UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; wanted is a header such as image,label and a row for each picture.") from None
    except pd.errors.ParserError as error:
        quoted = UNCLOSED.search(str(error))
        reason = f"a quotation mark in row {int(quoted[1]) + 1} is never closed" if quoted else str(error)
        raise UserError(f"{path} cannot be read as a table: {reason}.") from None
    frame = frame.fillna("")
    header = [name.strip() for name in frame.iloc[0]]
    width = max((number for number, name in enumerate(header, 1) if name), default=0)
    names = header[:width]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path} has several columns called {', '.join(repr(name) for name in twice)}; rename them.")
    frame.index = frame.index + 1  # A spreadsheet counts from 1, the header with them.
    body = frame.iloc[1:]
    body = body[(body != "").any(axis=1)]
    too_long = (body.iloc[:, width:] != "").any(axis=1)
    broken = [
        f"{path.name} row {number}: more than the {width} cells of the header; put quotes around text with a separator in it"
        for number in body.index[too_long]
    ]
    body = body[~too_long].iloc[:, :width]
    body.columns = pd.Index(names)
    return _Text(path, body, choose(str(path), names, asked), broken)


def _open_parquet(path: Path, asked: ColumnNames) -> _Parquet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}).") from None
    named = _named_classes(schema)
    images = [field.name for field in schema if _is_picture(field.type)]
    columns = choose(str(path), schema.names, asked, images, [name for name in named if name in schema.names])
    return _Parquet(path, schema, columns, named.get(columns.label, named.get("")))


def _named_classes(schema: "pa.Schema") -> dict[str, list[str]]:
    """{column: classes} from a table's metadata, as Hugging Face writes them; under "" those of the key `classes`."""
    found: dict[str, list[str]] = {}
    metadata = schema.metadata or {}
    if text := metadata.get(b"classes", b"").decode("utf-8", "replace").strip():
        listed = json.loads(text) if text.startswith("[") else text.split(",")
        found[""] = [str(name).strip() for name in listed]
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found |= {name: list(feature["names"]) for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # No metadata of theirs, or of another shape: labels are numbers then.
    return found


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_picture(kind: "pa.DataType") -> bool:
    """Bytes, or a struct that holds them under "bytes" as Hugging Face's Image feature does."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


@dataclass(frozen=True)
class ParquetColumn:
    """A column of encoded pictures; a row group is in memory at a time, so reading in the order of rows is quick.

    Attributes:
        path: The file.
        name: The column.
        stamp: When the file was last changed, in nanoseconds: a row group that was read before counts for this file alone.
    """

    path: Path
    name: str
    stamp: int

    def read(self, row: int) -> bytes:
        """The bytes in a row; OSError where there are none."""
        with _reading:
            starts = _starts(self.path, self.stamp)
            group = max(index for index, start in enumerate(starts) if start <= row)
            value = _group(self.path, self.name, self.stamp, group)[row - starts[group]].as_py()
        return encoded(value, self.path.parent)


def encoded(value: Any, folder: Path) -> bytes:
    """The picture's bytes in a cell: bytes, or a struct of bytes and path of which one may be missing.

    Raises:
        OSError: If there is neither, or no such file.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        if "://" in value:
            raise OSError(f"it lies elsewhere ({value}); download it first")
        return read_file(folder / value)
    if not value:
        raise OSError("the cell is empty")
    return bytes(value)


@lru_cache(maxsize=64)
def _starts(path: Path, stamp: int) -> list[int]:
    """The first row of each row group."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return [sum(counts[:index]) for index in range(len(counts))]


@lru_cache(maxsize=GROUPS_KEPT)
def _group(path: Path, name: str, stamp: int, index: int) -> "pa.ChunkedArray":
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read_row_group(index, columns=[name])[name]
