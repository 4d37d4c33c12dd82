"""Rows of a table gathered into splits and classes; every fault is told with its row."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rekindle.data.dataset import name_in
from rekindle.data.formats.columns import WORDS
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture, TableImage
from rekindle.data.formats.names import one_name, printable
from rekindle.data.splits import SPLITS, Found, FoundData
from rekindle.errors import number_of, some

UNLABELLED = -1
DECIMAL = re.compile(r"-?\d+(\.\d*)?")


@dataclass(frozen=True)
class TableRow:
    """A picture, its label, and its split.

    Attributes:
        where: What messages call it, such as "labels.csv row 18".
        picture: A file or a cell; None where a problem was told already.
        label: A class's text or number; None where there is none.
        split: "train", "val" or "test"; "train" where the table has no splits.
        group: What it belongs to; "" where the table has no groups.
    """

    where: str
    picture: Picture | None
    label: str | int | None
    split: str
    group: str = ""


def gather(root: Path, rows: Iterable[TableRow], names: Sequence[str] | None, findings: Findings, bare: bool) -> FoundData:
    """Classes and splits of a table's rows.

    Args:
        root: The folder that names start in.
        rows: In the table's order.
        names: Classes in the order of their numbers, where the table tells; a label is then a number or one of them.
        findings: Gets every problem.
        bare: The table has no splits.

    Returns:
        What was found, with every problem told by row.
    """
    rows = _numbers_as_one(_without_unlabelled_splits(list(rows), findings))
    kept: list[tuple[TableRow, str | int]] = []
    first: dict[str, tuple[TableRow, str | int]] = {}
    repeated: list[tuple[TableRow, TableRow]] = []
    identities, known = _Identities(), frozenset(names or ())
    for row in rows:
        label = _label(row, names, known, findings)
        if label is None or row.picture is None:
            continue
        name = name_in(root, row.picture)
        same = identities.of(row.picture)
        if same not in first:
            first[same] = (row, label)
            kept.append((row, label))
        elif _agrees(name, row, label, *first[same], findings):
            repeated.append((row, first[same][0]))
    _note_repeated(root, repeated, findings)
    place = {row.where: number for number, row in enumerate(rows)}
    findings.problems.sort(key=lambda problem: place.get(problem.partition(": ")[0], -1))
    classes = _classes({label for _, label in kept}, names, findings)
    found: dict[str, Found] = {"train": {}}
    for row, label in kept:
        assert row.picture is not None
        found.setdefault(row.split, {}).setdefault(str(label), []).append(row.picture)
    findings.problems[:0] = _class_problems(found, classes, findings)
    in_order = {split: {name: found[split][name] for name in classes if name in found[split]} for split in SPLITS if split in found}
    groups = {row.picture: row.group for row, _ in kept if row.picture is not None and row.group}
    return FoundData(root, in_order, classes, findings, bare, groups=groups)


def as_label(value: Any) -> str | int | None:
    """A cell as a label: text without spaces around it, a whole number, or None where it is empty.

    Returns:
        The label; whole numbers as int, also where they stood as 1.0.

    Examples:
        >>> as_label(" dress "), as_label(1.0), as_label("")
        ('dress', 1, None)
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        # A column of whole numbers in which some are missing arrives as floats.
        return int(value) if value.is_integer() else None if math.isnan(value) else str(value)
    if isinstance(value, int):
        return value
    return one_name(str(value).strip()) or None if value is not None else None


def as_groups(where: Sequence[str], cells: Iterable[Any], findings: Findings) -> list[str]:
    """Cells as names of groups; each that is empty is a problem.

    Returns:
        A name for each cell, in order; "" where there is a problem.
    """
    found = ["" if (name := as_label(cell)) is None else str(name) for cell in cells]
    findings.problems += [
        f"{place}: no group; fill it in, also where a picture is alone" for place, name in zip(where, found, strict=True) if not name
    ]
    return found


def as_split(value: Any) -> str | None:
    """A cell as a split's name; None if it is no known word.

    Returns:
        "train", "val" or "test", or None.

    Examples:
        >>> as_split("training"), as_split("dev"), as_split("other")
        ('train', 'val', None)
    """
    return WORDS.get(str(value).strip().casefold())


def _without_unlabelled_splits(rows: list[TableRow], findings: Findings) -> list[TableRow]:
    """Leave out a split none of whose rows has a label: that of a competition's test set."""
    labeled = {row.split for row in rows if row.label not in (None, UNLABELLED)}
    without = [split for split in SPLITS[1:] if split not in labeled and any(row.split == split for row in rows)]
    findings.notes += [
        f"{findings.root}: left out, without labels: {number_of(sum(row.split == split for row in rows), 'picture')} of {split}."
        for split in without
    ]
    return [row for row in rows if row.split not in without]


def _label(row: TableRow, names: Sequence[str] | None, known: frozenset[str], findings: Findings) -> str | int | None:
    """The row's class; None, with a problem told, where it has none. `known` are the names, to be found quickly."""
    if row.label is None:
        findings.problems.append(f"{row.where}: no label; fill it in or remove the row")
    elif names is None:
        return str(row.label)  # One table may hold 1 as a number and another as text.
    elif row.label in known:
        return row.label
    elif isinstance(row.label, int) and 0 <= row.label < len(names):
        return names[row.label]
    elif row.label == UNLABELLED:
        findings.problems.append(f"{row.where}: label -1 stands for no label; fill it in or remove the row")
    else:
        listed = f"0 to {len(names) - 1}" if isinstance(row.label, int) else some(list(names))
        findings.problems.append(printable(f"{row.where}: label {row.label!r} is none of the classes that the table names ({listed})"))
    return None


def _numbers_as_one(rows: list[TableRow]) -> list[TableRow]:
    """Rows whose labels that are numbers have one form: 1, "1" and "1.0" are one class where all such labels are whole."""
    numbers = {row.label for row in rows if isinstance(row.label, str) and DECIMAL.fullmatch(row.label)}
    if not any("." in number for number in numbers) or not all(float(number).is_integer() for number in numbers):
        return rows
    whole = {number: number.partition(".")[0] for number in numbers}
    return [replace(row, label=whole[row.label]) if row.label in whole else row for row in rows]


class _Identities:
    """Names for files such that two rows that name one file agree, also where the file system takes A.jpg and a.jpg for one."""

    def __init__(self) -> None:
        self._spelled: dict[str, str] = {}

    def of(self, picture: Picture) -> str:
        name = str(picture)
        if isinstance(picture, TableImage):
            return name
        before = self._spelled.setdefault(one_name(name).casefold(), name)
        links = os.path.islink(name) or os.path.islink(before)
        return before if name == before or (not links and os.path.samefile(name, before)) else name


def _agrees(name: str, row: TableRow, label: str | int, before: TableRow, label_before: str | int, findings: Findings) -> bool:
    """Whether a row says of a picture what a row before it says; else a problem is told."""
    if label != label_before:
        findings.problems.append(f"{row.where}: {name} is labelled {label} here and {label_before} in {before.where}; keep one")
    elif row.split != before.split:
        findings.problems.append(f"{row.where}: {name} is in {row.split} here and in {before.split} in {before.where}; keep one")
    elif row.group != before.group:
        findings.problems.append(f"{row.where}: {name} is of group {row.group} here and of {before.group} in {before.where}; keep one")
    else:
        return True
    return False


def _note_repeated(root: Path, repeated: list[tuple[TableRow, TableRow]], findings: Findings) -> None:
    """One note on all rows that stand twice."""
    if not repeated:
        return
    row, before = repeated[0]
    assert row.picture is not None
    name = name_in(root, row.picture)
    if len(repeated) == 1:
        findings.notes.append(printable(f"{row.where}: left out, {name} stands in {before.where} already."))
        return
    findings.notes.append(
        printable(
            f"{findings.root}: left out, {number_of(len(repeated), 'row')} whose picture stands in a row before, such as {row.where} ({name}, in {before.where}); "
            "to show a small class more often give --sampler balanced."
        )
    )


def _classes(labels: set[str | int], names: Sequence[str] | None, findings: Findings) -> list[str]:
    """Names in the order of their labels: as the table says, else by number, else by code point."""
    if names is not None:
        absent = [name for name in names if name not in labels]
        if absent and labels:
            findings.notes.append(printable(f"{findings.root}: left out, classes without a picture: {some(absent)}."))
        return [name for name in names if name in labels]
    if labels and all(_is_number(label) for label in labels):
        return [str(label) for label in sorted(labels, key=lambda label: (int(label), str(label)))]
    return sorted(map(str, labels))


def _is_number(label: str | int) -> bool:
    return isinstance(label, int) or (label.isascii() and label.removeprefix("-").isdigit())


def _class_problems(found: dict[str, Found], classes: list[str], findings: Findings) -> list[str]:
    """What is wrong with the classes as a whole. A class that only val or test lacks is noted: no label can shift."""
    if len(found["train"]) < 2:
        only = f" ({next(iter(found['train']))})" if found["train"] else ""
        return [printable(f"{findings.root}: {number_of(len(found['train']), 'class')} to train on{only}, at least 2 are needed")]
    problems = []
    for split, part in found.items():
        missing = [name for name in classes if name not in part]
        if split == "train":
            counts = Counter({name: sum(len(other.get(name, [])) for other in found.values()) for name in missing})
            problems += [
                printable(f"{findings.root}: class {name} has {number_of(counts[name], 'picture')} but none to train on")
                for name in missing
            ]
        elif missing:
            findings.notes.append(printable(f"{findings.root}: {split} has no pictures of {some(missing)}."))
    return problems
