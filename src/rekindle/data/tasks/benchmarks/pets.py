"""Oxford-IIIT Pets: "PICTURE CLASS SPECIES BREED" in each line of two lists; a class is named by its pictures."""

from pathlib import Path

from rekindle.data.tasks.parsing import home_of, label_of, rows
from rekindle.data.tasks.task import Layout, Task, TaskFile

LISTS = {"train": "trainval.txt", "test": "test.txt"}


def read(folder: Path) -> Layout:
    """annotations/trainval.txt and annotations/test.txt.

    Returns:
        Classes and the pictures of each split.
    """
    home = home_of(folder, "annotations/trainval.txt")
    listed = {split: [(name, int(number)) for name, number, *_ in rows(home / "annotations" / text, 4)] for split, text in LISTS.items()}
    names = {number: name.rsplit("_", 1)[0] for name, number in listed["train"]}
    classes = [names[number] for number in sorted(names)]
    images = home_of(folder, f"images/{listed['train'][0][0]}.jpg") / "images"
    splits = {
        split: [(images / f"{name}.jpg", label_of(number, classes, LISTS[split])) for name, number in found]
        for split, found in listed.items()
    }
    return Layout(classes, splits)


def _source(name: str, md5: str) -> TaskFile:
    hosts = ("https://www.robots.ox.ac.uk/~vgg/data/pets/data/", "https://thor.robots.ox.ac.uk/~vgg/data/pets/")
    return TaskFile(name, tuple(host + name for host in hosts), f"md5:{md5}")


PETS = Task(
    name="oxford_pets",
    title="Oxford-IIIT Pets",
    paper="Parkhi, Vedaldi, Zisserman, Jawahar, CVPR 2012",
    page="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    licence="CC BY-SA 4.0",
    sources=(
        _source("images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
        _source("annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
    ),
    read=read,
    classes=37,
    counts={"train": 3680, "test": 3669},
    split="annotations/trainval.txt and test.txt",
)
