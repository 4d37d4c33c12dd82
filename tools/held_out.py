"""Divide a task's official training pictures anew, so that choices are judged without its test pictures: FOLDER/{train,test}/CLASS.

Of each class TRAIN pictures are trained on and up to TEST others are measured, drawn by SEED; pictures are linked, not copied.

Example: python tools/held_out.py DATA/clothing held_out/clothing-10-s0 --train 10 --test 40 --seed 0
"""

import argparse
import random
from pathlib import Path


def divide(source: Path, target: Path, train: int, test: int, seed: int) -> None:
    """Link `train` pictures a class of source/train into target/train, and at most `test` others into target/test."""
    draw = random.Random(seed)
    for folder in sorted(path for path in (source / "train").iterdir() if path.is_dir()):
        pictures = sorted(path for path in folder.iterdir() if path.is_file())
        draw.shuffle(pictures)
        for split, chosen in {"train": pictures[:train], "test": pictures[train : train + test]}.items():
            (target / split / folder.name).mkdir(parents=True, exist_ok=True)
            for picture in chosen:
                (target / split / folder.name / picture.name).symlink_to(picture.resolve())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    for name, value in {"train": 10, "test": 40, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N")
    options = parser.parse_args()
    divide(options.source, options.target, options.train, options.test, options.seed)
