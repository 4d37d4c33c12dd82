"""Tables of labelled pictures: CSV, TSV and JSON lines files of paths, Parquet files of paths or encoded bytes."""

import bisect
import itertools
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.data.formats.columns import KNOWN, WEAK, WORDS, ColumnNames, ResolvedColumns, choose
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture, TableImage, read_file
from rekindle.data.formats.names import is_table, printable
from rekindle.data.formats.table_files import find_files
from rekindle.data.formats.table_rows import TableRow, as_groups, as_label, as_split, gather
from rekindle.data.splits import FoundData
from rekindle.errors import UserError, first_line, number_of
from rekindle.files import plain_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TEXTS, LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")
SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(r'"?sep=(?P<separator>.)"?[,;\t|]*', re.IGNORECASE)
SHARD = re.compile(r"(?P<word>[a-z]+)(-\d+-of-\d+)?", re.IGNORECASE)
UNCLOSED = re.compile(r"EOF inside string starting at row (\d+)")
GROUPS_KEPT = 4
JSON_LINE = '{"file_name": "1.jpg", "label": "cat"}'
_reading = threading.Lock()


def tables_in(folder: Path) -> dict[str, list[Path]]:
    """{split: tables} of a folder that holds train.csv or train.parquet, also in numbered parts; empty if it holds none.

    Returns:
        Paths by split, numbered parts in order.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = SHARD.fullmatch(path.stem)
        if is_table(path) and match and match["word"].lower() in WORDS and path.is_file():
            found.setdefault(WORDS[match["word"].lower()], []).append(path)
    return found if "train" in found else {}


def survey(path: Path, asked: ColumnNames) -> FoundData:
    """Classes and pictures of a table, or of a folder of tables that are named as their splits.

    Returns:
        What was found, with every problem of rows and columns.

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
    """A CSV, TSV or JSON lines file: `frame` holds text, its index the row numbers that a spreadsheet shows."""

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
        groups = as_groups(where, frame[self.columns.group], findings) if self.columns.group else [""] * len(frame)
        pictures = find_files(root, where, frame[self.columns.image], findings)
        yield from _rows(where, pictures, frame[self.columns.label], splits, groups, findings)


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
            *([self.columns.group] if self.columns.group else []),
            *([self.columns.image] if holds_paths else []),
        ]
        table = pq.read_table(self.path, columns=wanted)
        where = [f"{self.path.name}[{number}]" for number in range(table.num_rows)]
        pictures: list[Picture | None]
        if holds_paths:
            pictures = find_files(root, where, table[self.columns.image].to_pylist(), findings)
        else:
            column = ParquetColumn(self.path, self.columns.image, self.path.stat().st_mtime_ns)
            pictures = [TableImage(name, column, number) for number, name in enumerate(where)]
        splits = table[self.columns.split].to_pylist() if self.columns.split and not split else [split or "train"] * table.num_rows
        groups = as_groups(where, table[self.columns.group].to_pylist(), findings) if self.columns.group else [""] * table.num_rows
        yield from _rows(where, pictures, table[self.columns.label].to_pylist(), splits, groups, findings)


def _open(path: Path, asked: ColumnNames) -> "_Text | _Parquet":
    if path.suffix.lower() in LINES:
        return _open_lines(path, asked)
    return _open_text(path, asked) if path.suffix.lower() in TEXTS else _open_parquet(path, asked)


def _rows(
    where: Sequence[str], pictures: Sequence[Picture | None], labels: Any, splits: Any, groups: Sequence[str], findings: Findings
) -> Iterator[TableRow]:
    for place, picture, label, word, group in zip(where, pictures, labels, splits, groups, strict=True):
        split = as_split(word)
        if split is None:
            shown = "no split" if word is None or not str(word).strip() else f"split {str(word).strip()!r} is unknown"
            findings.problems.append(printable(f"{place}: {shown}; use train, val or test"))
        yield TableRow(place, picture if split else None, as_label(label), split or "train", group)


def _open_text(path: Path, asked: ColumnNames) -> _Text:
    """Read a CSV or TSV file: UTF-8 with or without a mark, any line ends, separated by comma, semicolon, tab or bar."""
    import pandas as pd

    try:
        text = path.read_text("utf-8-sig")
        lines = text.split("\n")
        skipped, separator = _header(lines)
        if skipped == len(lines):
            raise pd.errors.EmptyDataError
        # Excel writes a mark of the separator, and others comments, above the header.
        body_text = "\n".join([lines[skipped].lstrip("# "), *lines[skipped + 1 :]])
        # The header decides how many cells a row has, the longest line how many are looked for.
        widest = 1 + max(line.count(separator) for line in body_text.splitlines())
        frame = pd.read_csv(
            StringIO(body_text),
            sep=separator,
            header=None,
            names=range(widest),
            index_col=False,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it again as CSV UTF-8.") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; wanted is a header such as image,label and a row for each picture.") from None
    except pd.errors.ParserError as error:
        quoted = UNCLOSED.search(str(error))
        reason = f"a quotation mark in row {skipped + int(quoted[1]) + 1} is never closed" if quoted else str(error)
        raise UserError(f"{path} cannot be read as a table: {reason}.") from None
    frame = frame.fillna("").map(plain_text)
    header = [name.strip() for name in frame.iloc[0]]
    width = max((number for number, name in enumerate(header, 1) if name), default=0)
    names = header[:width]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path} has several columns called {', '.join(repr(name) for name in twice)}; rename them.")
    frame.index = frame.index + skipped + 1  # A spreadsheet counts from 1, the header with them.
    body = frame.iloc[1:]
    body = body[(body != "").any(axis=1)]
    too_long = (body.iloc[:, width:] != "").any(axis=1)
    broken = [
        f"{path.name} row {number}: more than the {number_of(width, 'cell')} of the header; put quotes around text with a separator in it"
        for number in body.index[too_long]
    ]
    body = body[~too_long].iloc[:, :width]
    body.columns = pd.Index(names)
    return _Text(path, body, choose(str(path), names, asked), broken)


def _header(lines: Sequence[str]) -> tuple[int, str]:
    """How many lines stand above a table's header, and what separates its cells.

    Those above are empty, a comment after "#" or Excel's mark of the separator, such as sep=;
    """
    separator = ""
    for number, line in enumerate(lines):
        mark = SEPARATOR_LINE.fullmatch(line.strip(" \r"))
        likely = max(SEPARATORS, key=line.count)
        names = {name.strip().casefold() for name in line.lstrip("# ").split(separator or likely)}
        commented = line.lstrip().startswith("#") and not names & {*KNOWN["image"], *WEAK["image"], *KNOWN["label"]}
        if mark:
            separator = mark["separator"]
        elif line.strip() and not commented:
            return number, separator or likely
    return len(lines), separator


def _open_lines(path: Path, asked: ColumnNames) -> _Text:
    """Read a file with a JSON object in each line, as Hugging Face's metadata.jsonl."""
    import pandas as pd

    rows: dict[int, dict[str, Any]] = {}
    try:
        for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
            if line.strip():
                rows[number] = dict(json.loads(line))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it again as UTF-8.") from None
    except (ValueError, TypeError):
        raise UserError(f"{path} row {number} is no JSON object; wanted is a line such as {JSON_LINE} for each picture.") from None
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    if not names:
        raise UserError(f"{path} is empty; wanted is a line such as {JSON_LINE} for each picture.")
    columns = choose(str(path), names, asked)
    frame = pd.DataFrame({name: [row.get(name) for row in rows.values()] for name in names}, index=list(rows), dtype=object)
    return _Text(path, frame, columns, [])


def _open_parquet(path: Path, asked: ColumnNames) -> _Parquet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({first_line(error)}).") from None
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
        """The bytes in a row; OSError where there are none.

        Returns:
            The encoded bytes of one picture.
        """
        with _reading:
            starts = _starts(self.path, self.stamp)
            group = bisect.bisect_right(starts, row) - 1
            value = _group(self.path, self.name, self.stamp, group)[row - starts[group]].as_py()
        return encoded(value, self.path.parent)


def encoded(value: Any, folder: Path) -> bytes:
    """The picture's bytes in a cell: bytes, or a struct of bytes and path of which one may be missing.

    Returns:
        The bytes, undecoded.

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
    return [0, *itertools.accumulate(counts[:-1])]


@lru_cache(maxsize=GROUPS_KEPT)
def _group(path: Path, name: str, stamp: int, index: int) -> "pa.ChunkedArray":
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read_row_group(index, columns=[name])[name]
