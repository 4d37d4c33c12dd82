"""Describable Textures: ten official partitions, of which the first is taken."""

from pathlib import Path

from rekindle.data.tasks.parsing import by_class, home_of
from rekindle.data.tasks.task import Layout, Task, TaskFile

PARTITION = 1
SPLITS = ("train", "val", "test")


def read(folder: Path) -> Layout:
    """labels/SPLIT1.txt, "CLASS/picture.jpg" in each line.

    Returns:
        Classes and the pictures of each split.
    """
    home = home_of(folder, f"labels/train{PARTITION}.txt")
    lists = {split: (home / "labels" / f"{split}{PARTITION}.txt").read_text("utf-8").split() for split in SPLITS}
    classes = sorted({name.split("/")[0] for name in lists["train"]})
    return Layout(classes, {split: by_class(home / "images", names, classes) for split, names in lists.items()})


DTD = Task(
    name="dtd",
    title="Describable Textures Dataset (r1.0.1), partition 1",
    paper="Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi, CVPR 2014",
    page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    licence="research",
    sources=(
        TaskFile(
            "dtd-r1.0.1.tar.gz",
            (
                "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                "https://thor.robots.ox.ac.uk/dtd/dtd-r1.0.1.tar.gz",
            ),
            "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
        ),
    ),
    read=read,
    classes=47,
    counts={"train": 1880, "val": 1880, "test": 1880},
    split="labels/train1, val1 and test1.txt of the archive, the first of ten partitions",
)
