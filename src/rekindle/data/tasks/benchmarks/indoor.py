"""MIT Indoor Scenes: 80 training and 20 test pictures of each of 67 classes, named by two lists beside the archive."""

from pathlib import Path

from rekindle.data.tasks.parsing import by_class, home_of
from rekindle.data.tasks.task import Layout, Task, TaskFile

LISTS = {"train": "TrainImages.txt", "test": "TestImages.txt"}


def read(folder: Path) -> Layout:
    """TrainImages.txt and TestImages.txt, "CLASS/picture.jpg" in each line; pictures in neither are left out.

    Returns:
        Classes and the pictures of each split.
    """
    lines = {split: (home_of(folder, name) / name).read_text("utf-8").splitlines() for split, name in LISTS.items()}
    lists = {split: [line.strip() for line in found if line.strip()] for split, found in lines.items()}
    classes = sorted({name.split("/")[0] for name in lists["train"]})
    images = home_of(folder, f"Images/{lists['train'][0]}") / "Images"
    return Layout(classes, {split: by_class(images, names, classes) for split, names in lists.items()})


INDOOR = Task(
    name="indoor67",
    title="MIT Indoor Scenes (Indoor-67)",
    paper="Quattoni, Torralba, CVPR 2009",
    page="https://web.mit.edu/torralba/www/indoor.html",
    licence="research",
    sources=(
        TaskFile("indoorCVPR_09.tar", ("http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar",)),
        TaskFile(
            "TrainImages.txt", ("https://web.mit.edu/torralba/www/TrainImages.txt", "http://web.mit.edu/torralba/www/TrainImages.txt")
        ),
        TaskFile("TestImages.txt", ("https://web.mit.edu/torralba/www/TestImages.txt", "http://web.mit.edu/torralba/www/TestImages.txt")),
    ),
    read=read,
    classes=67,
    counts={"train": 5360, "test": 1340},
    split="TrainImages.txt and TestImages.txt, 80 and 20 a class",
)
