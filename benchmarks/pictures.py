"""A folder of made-up pictures: what is measured here depends on their number and size alone."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, EDGE = 10, 160


def picture_folder(root: Path, splits: dict[str, int]) -> Path:
    """Write root/SPLIT/CLASS/NUMBER.jpg, so many pictures a class.

    Args:
        root: A new folder.
        splits: Pictures a class, by split.
    """
    rng = np.random.default_rng(0)
    for split, count in splits.items():
        for kind in range(CLASSES):
            folder = root / split / f"class{kind}"
            folder.mkdir(parents=True)
            for number in range(count):
                small = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(small).resize((EDGE, EDGE)).save(folder / f"{number}.jpg")
    return root
