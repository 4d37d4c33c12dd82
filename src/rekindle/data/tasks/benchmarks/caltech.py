"""Caltech-256: no official split exists; 60 training and 20 test pictures a class, by hash, as L2-SP counts them."""

import re
from pathlib import Path

from rekindle.data.splits import split_key
from rekindle.data.tasks.parsing import home_of
from rekindle.data.tasks.task import LabeledPaths, Layout, Task, TaskFile
from rekindle.errors import UserError, number_of

TRAIN, TEST = 60, 20
PURPOSE = "caltech256"


def read(folder: Path, train: int = TRAIN, test: int = TEST) -> Layout:
    """NNN.CLASS/NNN_NNNN.jpg; the archive's stray files have other names, and its clutter counts as a class.

    Returns:
        Classes and the pictures of each split.
    """
    home = home_of(folder, "001.ak47/001_0001.jpg")
    kinds = sorted(path for path in home.iterdir() if path.is_dir() and re.match(r"\d{3}\.", path.name))
    splits: dict[str, LabeledPaths] = {"train": [], "test": []}
    for label, kind in enumerate(kinds):
        names = [path.name for path in kind.iterdir() if re.fullmatch(r"\d{3}_\d{4}\.jpg", path.name)]
        if len(names) < train + test:
            raise UserError(
                f"class {kind.name} has {number_of(len(names), 'picture')}, {train + test} are wanted; the archive is damaged or not the official one."
            )
        names.sort(key=lambda name: split_key(0, PURPOSE, f"{kind.name}/{name}"))
        splits["test"] += [(kind / name, label) for name in sorted(names[:test])]
        splits["train"] += [(kind / name, label) for name in sorted(names[test : test + train])]
    return Layout([kind.name for kind in kinds], splits)


CALTECH = Task(
    name="caltech256",
    title="Caltech-256, 60 training pictures a class",
    paper="Griffin, Holub, Perona, CNS-TR-2007-001; counts after Li et al., ICML 2018",
    page="https://data.caltech.edu/records/nyy15-4j048",
    licence="CC BY 4.0",
    sources=(
        TaskFile(
            "256_ObjectCategories.tar",
            ("https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",),
            "md5:67b4f42ca05d46448c6bb8ecd2220f6d",
        ),
    ),
    read=read,
    classes=257,
    counts={"train": 257 * TRAIN, "test": 257 * TEST},
    split="none is official: 20 test and 60 training pictures a class that come first by hash (--per-class 30 gives the smaller task)",
)
