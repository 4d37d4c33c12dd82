"""Food-101 with 30 or 150 training pictures a class; which ones was never published, so a rule that anybody can repeat chooses them."""

import json
from functools import partial
from pathlib import Path

from rekindle.data.splits import split_key
from rekindle.data.tasks.parsing import by_class, home_of
from rekindle.data.tasks.task import Layout, Task, TaskFile
from rekindle.errors import number_of

PURPOSE = "food101"


def read(folder: Path, per_class: int) -> Layout:
    """meta/train.json and meta/test.json: {class: ["CLASS/number", ...]}.

    Returns:
        Classes and the pictures of each split.
    """
    home = home_of(folder, "meta/train.json")
    lists = {split: json.loads((home / "meta" / f"{split}.json").read_text("utf-8")) for split in ("train", "test")}
    classes = sorted(lists["train"])
    names = {
        "train": [name for kind in classes for name in chosen(lists["train"][kind], per_class)],
        "test": [name for kind in classes for name in lists["test"][kind]],
    }
    return Layout(classes, {split: by_class(home / "images", [f"{name}.jpg" for name in found], classes) for split, found in names.items()})


def chosen(names: list[str], count: int) -> list[str]:
    """The `count` names that come first by hash of (0, "food101", name), sorted: the 30 of a class are among its 150.

    Returns:
        `count` of the names.
    """
    return sorted(sorted(names, key=lambda name: split_key(0, PURPOSE, name))[:count])


def _task(per_class: int) -> Task:
    return Task(
        name=f"food101_{per_class}",
        title=f"Food-101, {number_of(per_class, 'training picture')} a class",
        paper="Bossard, Guillaumin, Van Gool, ECCV 2014; subset after Li et al., ICML 2020",
        page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        licence="pictures from Foodspotting, which are not ETH's; research",
        sources=(
            TaskFile(
                "food-101.tar.gz",
                ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz"),
                "md5:85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
        read=partial(read, per_class=per_class),
        classes=101,
        counts={"train": 101 * per_class, "test": 25250},
        split=f"meta/test.json; of meta/train.json the {per_class} a class that come first by hash (the papers' choice was not published)",
    )


FOOD_30, FOOD_150 = _task(30), _task(150)
