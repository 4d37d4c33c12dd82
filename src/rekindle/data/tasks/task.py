"""What is known of a benchmark task before it is prepared, and what a reader finds in its archives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LabeledPaths = list[tuple[Path, int]]


@dataclass(frozen=True)
class TaskFile:
    """One file that a task needs.

    Attributes:
        file: Its name.
        urls: Addresses that serve this very file, tried in order.
        hash: "md5:..." or "sha256:..." as published; "" where none is, and then the first one seen is recorded and holds.
    """

    file: str
    urls: tuple[str, ...]
    hash: str = ""


@dataclass(frozen=True)
class Layout:
    """What a reader found.

    Attributes:
        classes: Names in the official order; a label is a position in it.
        splits: {"train", "val", "test": pictures, as paths below the folder that was read, and labels}.
    """

    classes: list[str]
    splits: dict[str, LabeledPaths]


@dataclass(frozen=True)
class Task:
    """A benchmark task.

    Attributes:
        name: What to type.
        title: What the authors call it.
        paper: Who published it.
        page: Its home page.
        licence: As far as its authors state one.
        sources: The files it is made from.
        read: Finds the official classes and splits below the folder into which all sources were extracted.
        classes: Official number of classes.
        counts: Official number of pictures of each split.
        split: Where the splits come from, in words.
    """

    name: str
    title: str
    paper: str
    page: str
    licence: str
    sources: tuple[TaskFile, ...]
    read: Callable[[Path], Layout]
    classes: int
    counts: dict[str, int]
    split: str
