"""Stanford Dogs: 100 training pictures of each of 120 breeds. The pictures come from ImageNet, so a source trained on it has seen them."""

from pathlib import Path

import numpy as np

from rekindle.data.tasks.parsing import by_class, home_of, matlab
from rekindle.data.tasks.task import Layout, Task, TaskFile

LISTS = {"train": "train_list.mat", "test": "test_list.mat"}


def read(folder: Path) -> Layout:
    """train_list.mat and test_list.mat, "SYNSET-BREED/picture.jpg" in each cell.

    Returns:
        Classes and the pictures of each split.
    """
    cells = {split: matlab(home_of(folder, name) / name)["file_list"] for split, name in LISTS.items()}
    lists = {split: [str(name) for name in np.atleast_1d(found)] for split, found in cells.items()}
    classes = sorted({name.split("/")[0] for name in lists["train"]})
    images = home_of(folder, f"Images/{lists['train'][0]}") / "Images"
    return Layout(classes, {split: by_class(images, names, classes) for split, names in lists.items()})


DOGS = Task(
    name="stanford_dogs",
    title="Stanford Dogs (pictures from ImageNet)",
    paper="Khosla, Jayadevaprakash, Yao, Fei-Fei, FGVC 2011",
    page="http://vision.stanford.edu/aditya86/ImageNetDogs/",
    licence="ImageNet's terms: non-commercial research and education",
    sources=(
        TaskFile("images.tar", ("http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",), "md5:1bb1f2a596ae7057f99d7d75860002ef"),
        TaskFile("lists.tar", ("http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar",), "md5:edbb9f16854ec66506b5f09b583e0656"),
    ),
    read=read,
    classes=120,
    counts={"train": 12000, "test": 8580},
    split="train_list.mat and test_list.mat, 100 training pictures a class",
)
