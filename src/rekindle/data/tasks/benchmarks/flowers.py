"""Oxford Flowers-102: pictures by number, splits and labels in two MATLAB files."""

from pathlib import Path

from rekindle.data.tasks.parsing import home_of, label_of, matlab
from rekindle.data.tasks.task import Layout, Task, TaskFile

KEYS = {"train": "trnid", "val": "valid", "test": "tstid"}


def read(folder: Path) -> Layout:
    """setid.mat and imagelabels.mat; the archive holds no class names, torchvision publishes them.

    Returns:
        Classes and the pictures of each split.
    """
    from torchvision.datasets import Flowers102

    classes = list(Flowers102.classes)
    labels = matlab(home_of(folder, "imagelabels.mat") / "imagelabels.mat")["labels"].tolist()
    ids = matlab(home_of(folder, "setid.mat") / "setid.mat")
    jpg = home_of(folder, "jpg/image_00001.jpg") / "jpg"
    splits = {
        split: [(jpg / f"image_{number:05d}.jpg", label_of(labels[number - 1], classes, "imagelabels.mat")) for number in ids[key].tolist()]
        for split, key in KEYS.items()
    }
    return Layout(classes, splits)


def _source(name: str, md5: str) -> TaskFile:
    hosts = ("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/", "https://thor.robots.ox.ac.uk/flowers/102/")
    return TaskFile(name, tuple(host + name for host in hosts), f"md5:{md5}")


FLOWERS = Task(
    name="flowers102",
    title="Oxford Flowers-102",
    paper="Nilsback, Zisserman, ICVGIP 2008",
    page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    licence="not stated",
    sources=(
        _source("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
        _source("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
        _source("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    read=read,
    classes=102,
    counts={"train": 1020, "val": 1020, "test": 6149},
    split="trnid, valid and tstid of setid.mat",
)
