"""Caltech-UCSD Birds-200-2011: text files that share one numbering of the pictures."""

from pathlib import Path

from rekindle.data.tasks.parsing import home_of, label_of, rows
from rekindle.data.tasks.task import LabeledPaths, Layout, Task, TaskFile


def read(folder: Path) -> Layout:
    """images.txt, image_class_labels.txt and train_test_split.txt (1 is train).

    Returns:
        Classes and the pictures of each split.
    """
    home = home_of(folder, "train_test_split.txt")
    classes = [name for _, name in rows(home / "classes.txt", 2)]
    labels = {number: int(label) for number, label in rows(home / "image_class_labels.txt", 2)}
    parts = {number: "train" if flag == "1" else "test" for number, flag in rows(home / "train_test_split.txt", 2)}
    splits: dict[str, LabeledPaths] = {"train": [], "test": []}
    for number, name in rows(home / "images.txt", 2):
        splits[parts[number]].append((home / "images" / name, label_of(labels[number], classes, "image_class_labels.txt")))
    return Layout(classes, splits)


CUB = Task(
    name="cub_200_2011",
    title="Caltech-UCSD Birds-200-2011",
    paper="Wah, Branson, Welinder, Perona, Belongie, CNS-TR-2011-001",
    page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    licence="non-commercial research and education",
    sources=(
        TaskFile(
            "CUB_200_2011.tgz",
            (
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                "http://www.vision.caltech.edu/visipedia-data/CUB-200-2011/CUB_200_2011.tgz",
            ),
            "md5:97eceeb196236b17998738112f37df78",
        ),
    ),
    read=read,
    classes=200,
    counts={"train": 5994, "test": 5794},
    split="train_test_split.txt of the archive",
)
