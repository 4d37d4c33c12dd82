"""A prepared task on the disk: ROOT/tasks/NAME with pictures, sha256sums.txt and, written last, task.json."""

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from rekindle.data.cache.cache_dir import home
from rekindle.errors import UserError
from rekindle.stored import FileFormat

RECORD = "task.json"
SUMS = "sha256sums.txt"
PICTURES = "pictures"


class TaskRecord(TypedDict):
    """task.json."""

    name: str
    classes: list[str]
    splits: dict[str, list[list[str | int]]]
    counts: dict[str, int]
    sources: list[dict[str, Any]]


TASK = FileFormat(2, TaskRecord, "remove {folder} and type: rekindle data prepare {folder.name}")


def place(name: str, root: Path | str | None = None) -> Path:
    """Where a task lies once it is prepared.

    Returns:
        A folder, which need not exist.
    """
    return home(root) / "tasks" / name


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared task.

    Returns:
        True where the folder is whole: it appears whole or not at all.
    """
    return (folder / RECORD).is_file()


def record(folder: Path) -> dict[str, Any]:
    """What task.json says.

    Returns:
        Plain values: classes, splits, counts and sources.

    Raises:
        UserError: If it is missing or damaged.
    """
    if not (folder / RECORD).exists():
        raise UserError(f"{folder.name} is not prepared: {folder} holds no {RECORD}; type: rekindle data prepare {folder.name}")
    return {**TASK.read(folder / RECORD)}


def counted(counts: dict[str, int]) -> str:
    """Pictures of each split in words.

    Returns:
        Such as "1020 train, 1020 val, 6149 test".
    """
    return ", ".join(f"{count} {split}" for split, count in counts.items())
