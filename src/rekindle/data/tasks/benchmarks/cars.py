"""Stanford Cars: pictures by split, labels in MATLAB files of the development kit."""

from pathlib import Path

import numpy as np

from rekindle.data.tasks.parsing import home_of, label_of, matlab
from rekindle.data.tasks.task import Layout, Task, TaskFile

MARKS = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}


def read(folder: Path) -> Layout:
    """cars_meta.mat, cars_train_annos.mat, and the test labels that were published later.

    Returns:
        Classes and the pictures of each split.
    """
    classes = [str(name) for name in matlab(home_of(folder, "cars_meta.mat") / "cars_meta.mat")["class_names"]]
    splits = {}
    for split, mark in MARKS.items():
        marked = np.atleast_1d(matlab(home_of(folder, mark) / mark)["annotations"])
        pictures = home_of(folder, f"cars_{split}/{marked[0]['fname']}") / f"cars_{split}"
        splits[split] = [(pictures / str(one["fname"]), label_of(int(one["class"]), classes, mark)) for one in marked]
    return Layout(classes, splits)


def _source(folder: str, name: str, md5: str) -> TaskFile:
    hosts = ("https://ai.stanford.edu/~jkrause/", "http://ai.stanford.edu/~jkrause/", "http://imagenet.stanford.edu/internal/")
    return TaskFile(name, tuple(f"{host}{folder}/{name}" for host in hosts), f"md5:{md5}")


CARS = Task(
    name="stanford_cars",
    title="Stanford Cars",
    paper="Krause, Stark, Deng, Fei-Fei, 3dRR 2013",
    page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    licence="non-commercial research",
    sources=(
        _source("car196", "cars_train.tgz", "065e5b463ae28d29e77c1b4b166cfe61"),
        _source("car196", "cars_test.tgz", "4ce7ebf6a94d07f1952d94dd34c4d501"),
        _source("cars", "car_devkit.tgz", "c3b158d763b6e2245038c8ad08e45376"),
        _source("car196", "cars_test_annos_withlabels.mat", "b0a2b23655a3edd16d84508592a98d10"),
    ),
    read=read,
    classes=196,
    counts={"train": 8144, "test": 8041},
    split="cars_train_annos.mat and cars_test_annos_withlabels.mat",
)
