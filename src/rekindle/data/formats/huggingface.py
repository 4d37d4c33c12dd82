"""Hugging Face datasets, by name or from a folder that `save_to_disk` wrote. No code of a dataset is ever run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.data.formats.columns import WORDS, ColumnNames, ResolvedColumns, choose
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import TableImage
from rekindle.data.formats.table_rows import TableRow, as_groups, as_label, as_split, gather
from rekindle.data.formats.tables import encoded
from rekindle.data.splits import FoundData
from rekindle.errors import UserError, first_line

if TYPE_CHECKING:
    import datasets

PREFIX = "hf:"
SAVED = ("dataset_dict.json", "state.json")


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder.

    Returns:
        True for a folder that holds a dataset or a dictionary of them.
    """
    return any((folder / name).is_file() for name in SAVED)


def survey(source: str, asked: ColumnNames) -> FoundData:
    """Classes and pictures of a dataset.

    Args:
        source: A folder, or hf:NAME or hf:NAME:CONFIGURATION on the hub.
        asked: Names of columns.

    Returns:
        What was found, with every problem of rows and columns.

    Raises:
        UserError: If it cannot be loaded, or its columns are not clear.
    """
    local = Path(source.removeprefix(PREFIX))
    loaded = _load(source, local)
    root = local if local.is_dir() else Path(source)
    findings = Findings(root)
    parts = _parts(loaded, source, findings)
    first = parts.get("train") or next(iter(parts.values()))
    columns = _columns(source, first, asked)
    rows: list[TableRow] = []
    for split, part in parts.items():
        rows += _rows(source, split, part, columns, root, findings, one=len(parts) == 1)
    names = getattr(first.features[columns.label], "names", None)
    # A dataset of one split calls it train, whatever it is for.
    found = gather(root, rows, names, findings, bare=len(parts) == 1 and not columns.split)
    found.choices.update(columns.choices())
    return found


def _load(source: str, local: Path) -> "datasets.Dataset | datasets.DatasetDict":
    try:
        import datasets
    except ImportError:
        raise UserError(f"{source} needs the package datasets; type: pip install 'rekindle[datasets]'") from None
    try:
        if local.is_dir():
            return datasets.load_from_disk(str(local))
        name, _, configuration = source.removeprefix(PREFIX).partition(":")
        found = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # noqa: BLE001
        # The hub, the file system, Arrow and the dataset's own files all have errors of their own.
        what = "is no dataset that save_to_disk wrote" if local.is_dir() else "cannot be loaded"
        raise UserError(
            f"{source} {what} ({first_line(error)}); give hf:NAME, hf:NAME:CONFIGURATION or a folder that save_to_disk wrote."
        ) from None
    return found


def _parts(loaded: "datasets.Dataset | datasets.DatasetDict", source: str, findings: Findings) -> "dict[str, datasets.Dataset]":
    """{split: dataset}; a lone dataset is all for training."""
    if not isinstance(loaded, dict):
        return {"train": loaded}
    parts: dict[str, datasets.Dataset] = {}
    other = []
    for name, part in loaded.items():
        split = WORDS.get(str(name).casefold())
        if split is None:
            other.append(str(name))
        elif split in parts:
            raise UserError(f"{source} has several splits for {split}; its splits are {', '.join(map(str, loaded))}.")
        else:
            parts[split] = part
    if "train" not in parts:
        raise UserError(f"{source} has no split called train; its splits are {', '.join(map(str, loaded)) or 'none'}.")
    if other:
        findings.notes.append(f"{source}: left out, other splits: {', '.join(other)}.")
    return parts


def _columns(source: str, part: "datasets.Dataset", asked: ColumnNames) -> ResolvedColumns:
    import datasets

    images = [name for name, feature in part.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in part.features.items() if isinstance(feature, datasets.ClassLabel)]
    return choose(source, part.column_names, asked, images, labels)


def _rows(
    source: str, split: str, part: "datasets.Dataset", columns: ResolvedColumns, root: Path, findings: Findings, one: bool
) -> Sequence[TableRow]:
    import datasets

    missing = [name for name in vars(columns).values() if name and name not in part.column_names]
    if missing:
        raise UserError(f"{source}: split {split} has no column {', '.join(missing)}; it has {', '.join(part.column_names)}.")
    part = part.with_format(None)
    pictures = part.select_columns([columns.image])
    if isinstance(pictures.features[columns.image], datasets.Image):
        pictures = pictures.cast_column(columns.image, datasets.Image(decode=False))
    column = ArrowColumn(pictures, columns.image, root)
    words: Sequence[Any] = [split] * len(part)
    if columns.split and one:
        words = part[columns.split][:]
        feature = part.features[columns.split]
        words = [feature.int2str(word) for word in words] if isinstance(feature, datasets.ClassLabel) else words
    names = [f"{split}[{number}]" for number in range(len(part))]
    groups = as_groups(names, part[columns.group][:], findings) if columns.group else [""] * len(part)
    rows = []
    for number, (name, label, word, group) in enumerate(zip(names, part[columns.label][:], words, groups, strict=True)):
        known = as_split(word)
        if known is None:
            findings.problems.append(f"{name}: split {word!r} is unknown; use train, val or test")
        rows.append(TableRow(name, TableImage(name, column, number) if known else None, as_label(label), known or "train", group))
    return rows


@dataclass(frozen=True)
class ArrowColumn:
    """A column of a dataset that lies in Arrow files, mapped into memory.

    Attributes:
        table: The dataset, with this column alone, its pictures not decoded.
        name: The column.
        root: Where paths in it start.
    """

    table: "datasets.Dataset"
    name: str
    root: Path

    def read(self, row: int) -> bytes:
        """The bytes in a row; OSError where there are none.

        Returns:
            The encoded bytes of one picture.
        """
        return encoded(self.table[row][self.name], self.root)
