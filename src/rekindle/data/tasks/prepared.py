"""A prepared task on the disk: ROOT/tasks/NAME with pictures, sha256sums.txt and, written last, task.json."""

import json
from pathlib import Path
from typing import Any

from rekindle.data.cache.cache_dir import home
from rekindle.errors import UserError

RECORD = "task.json"
SUMS = "sha256sums.txt"
PICTURES = "pictures"


def place(name: str, root: Path | str | None = None) -> Path:
    """Where a task lies once it is prepared."""
    return home(root) / "tasks" / name


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared task."""
    return (folder / RECORD).is_file()


def record(folder: Path) -> dict[str, Any]:
    """What task.json says.

    Raises:
        UserError: If it is missing or damaged.
    """
    try:
        found = json.loads((folder / RECORD).read_text("utf-8"))
        if not {"name", "classes", "splits", "counts", "sources"} <= found.keys():
            raise ValueError("keys are missing")
    except FileNotFoundError:
        raise UserError(f"{folder.name} is not prepared: {folder} holds no {RECORD}; type: rekindle data prepare {folder.name}") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder / RECORD} is damaged ({error}); remove {folder} and type: rekindle data prepare {folder.name}") from None
    return dict(found)


def counted(counts: dict[str, int]) -> str:
    """Pictures of each split in words."""
    return ", ".join(f"{count} {split}" for split, count in counts.items())
