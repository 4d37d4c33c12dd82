"""A prepared task as data to train on."""

from pathlib import Path

from rekindle.data.formats.folder_walk import Findings
from rekindle.data.splits import Found, FoundData
from rekindle.data.tasks import TASKS, find
from rekindle.data.tasks.prepared import is_prepared, place, record
from rekindle.errors import UserError

JOINED = "+val"


def is_task(data: Path | str) -> bool:
    """Whether data names a task, or a folder that holds a prepared one; a folder of one's own comes before a task of its name.

    Returns:
        True where `survey` can be asked.
    """
    path = Path(data)
    return is_prepared(path) if path.exists() else str(data).removesuffix(JOINED) in TASKS


def survey(data: Path | str) -> FoundData:
    """Classes in the official order, and the pictures of each split: the official test split, and the official validation split if any.

    Args:
        data: A task's name, or the folder of a prepared one. With "+val" at the end of a name its official validation split
            joins train, and validation is taken from both by the rule for tasks without.

    Returns:
        What was found; none of a prepared task's pictures is missing.

    Raises:
        UserError: If it is not prepared; the message says what to type.
    """
    path, joined = Path(data), False
    if path.exists():
        folder = path
    else:
        name = str(data).removesuffix(JOINED)
        joined = name != str(data)
        folder = place(find(name).name)
    content = record(folder)
    splits: dict[str, list[tuple[str, int]]] = dict(content["splits"])
    if joined:
        if "val" not in splits:
            raise UserError(
                f"{content['name']} has no official validation split that could join train; type {content['name']} without {JOINED}."
            )
        splits["train"] = sorted([*splits["train"], *splits.pop("val")])
    classes: list[str] = content["classes"]
    found: dict[str, Found] = {}
    for split, samples in splits.items():
        found[split] = {kind: [] for kind in classes}
        for picture, label in samples:
            found[split][classes[label]].append(folder / picture)
    return FoundData(folder, found, classes, Findings(folder), bare=False, choices={"task": content["name"]})
