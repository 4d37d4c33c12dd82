"""FGVC-Aircraft: one text file a split, "PICTURE VARIANT" in each line."""

from pathlib import Path

from rekindle.data.tasks.parsing import home_of, rows
from rekindle.data.tasks.task import Layout, Task, TaskFile
from rekindle.errors import UserError

SPLITS = ("train", "val", "test")


def read(folder: Path) -> Layout:
    """images_variant_SPLIT.txt; a variant's name may hold blanks and slashes.

    Returns:
        Classes and the pictures of each split.
    """
    data = home_of(folder, "images_variant_train.txt")
    classes = [line.strip() for line in (data / "variants.txt").read_text("utf-8").splitlines() if line.strip()]
    labels = {name: label for label, name in enumerate(classes)}
    splits = {}
    for split in SPLITS:
        listed = rows(data / f"images_variant_{split}.txt", 2)
        unknown = [name for _, name in listed if name not in labels]
        if unknown:
            raise UserError(f"images_variant_{split}.txt names {unknown[0]}, which is not in variants.txt.")
        splits[split] = [(data / "images" / f"{number}.jpg", labels[name]) for number, name in listed]
    return Layout(classes, splits)


AIRCRAFT = Task(
    name="fgvc_aircraft",
    title="FGVC-Aircraft (2013b), variants",
    paper="Maji, Rahtu, Kannala, Blaschko, Vedaldi, arXiv 1306.5151",
    page="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    licence="non-commercial research",
    sources=(
        TaskFile(
            "fgvc-aircraft-2013b.tar.gz",
            ("https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",),
            "md5:d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    read=read,
    classes=100,
    counts={"train": 3334, "val": 3333, "test": 3333},
    split="images_variant_train, _val and _test.txt of the archive",
)
