"""CIFAR-10 and -100 from their binary archives, which need no pickle; each record becomes a PNG, without loss."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rekindle.data.tasks.parsing import home_of, label_of
from rekindle.data.tasks.task import LabeledPaths, Layout, Task, TaskFile
from rekindle.errors import UserError, number_of

PIXELS = 3 * 32 * 32


def read(folder: Path, names: str, label_bytes: int, files: dict[str, tuple[str, ...]]) -> Layout:
    """Records of label bytes (the last one is the class) and 3 x 32 x 32 pixel bytes, written to SPLIT/CLASS/NUMBER.png.

    Args:
        folder: The extracted archive, into which the pictures are written.
        names: Text file of the class names.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100, whose first one is the coarse label.
        files: {split: binary files}.

    Returns:
        Classes and the pictures of each split.
    """
    home = home_of(folder, names)
    classes = (home / names).read_text("utf-8").split()
    splits: dict[str, LabeledPaths] = {}
    for split, parts in files.items():
        records = np.concatenate([_records(home / part, label_bytes) for part in parts])
        for kind in classes:
            (home / split / kind).mkdir(parents=True, exist_ok=True)
        splits[split] = []
        for number, record in enumerate(records):
            label = label_of(int(record[label_bytes - 1]) + 1, classes, split)
            path = home / split / classes[label] / f"{number:05d}.png"
            Image.fromarray(record[label_bytes:].reshape(3, 32, 32).transpose(1, 2, 0)).save(path, compress_level=1)
            splits[split].append((path, label))
    return Layout(classes, splits)


def _records(path: Path, label_bytes: int) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"no {path.name} in the archive; it is not the official binary version.")
    data = np.fromfile(path, np.uint8)
    width = label_bytes + PIXELS
    if len(data) % width:
        raise UserError(
            f"{path.name} has {number_of(len(data), 'byte')}, not a multiple of {width}; it is cut or not the official binary version."
        )
    return data.reshape(-1, width)


def _source(name: str, md5: str) -> tuple[TaskFile]:
    return (TaskFile(name, (f"https://www.cs.toronto.edu/~kriz/{name}", f"https://cave.cs.toronto.edu/kriz/{name}"), f"md5:{md5}"),)


CIFAR10 = Task(
    name="cifar10",
    title="CIFAR-10",
    paper="Krizhevsky, 2009",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="not stated",
    sources=_source("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    read=partial(
        read, names="batches.meta.txt", label_bytes=1,
        files={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    ),
    classes=10,
    counts={"train": 50000, "test": 10000},
    split="data_batch_1 to 5 and test_batch",
)  # fmt: skip
CIFAR100 = Task(
    name="cifar100",
    title="CIFAR-100, fine labels",
    paper="Krizhevsky, 2009",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="not stated",
    sources=_source("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
    read=partial(read, names="fine_label_names.txt", label_bytes=2, files={"train": ("train.bin",), "test": ("test.bin",)}),
    classes=100,
    counts={"train": 50000, "test": 10000},
    split="train.bin and test.bin",
)
