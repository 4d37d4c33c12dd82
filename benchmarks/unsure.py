"""How many strangers a run is unsure of, and how many pictures of its own classes: `python benchmarks/unsure.py DATA OUT.csv RUN ...`.

DATA holds a folder a task, each with test/CLASS/picture.jpg; a run's folder begins with its task's name. Strangers are pictures of the
other tasks' test splits, the same ones for every run.
"""

import random
import sys
from pathlib import Path

import torch

from rekindle.files import csv_text, write_atomic
from rekindle.run import Run

OWN, STRANGERS = 300, 80
HEADER = ["run", "task", "training", "validation", "accuracy", "temperature", "loss", "loss_at_1", "pictures_of", "pictures", "unsure"]


def pictures(task: Path, most: int) -> list[Path]:
    """Some of a task's test split."""
    found = sorted((task / "test").glob("*/*.*"))
    return random.Random(0).sample(found, min(most, len(found)))


def measure(run: Run, data: Path) -> list[list[object]]:
    """A row for the run's own task and one for each other."""
    name, result = run.folder.name.partition("-")[0], run.result
    about = [
        run.folder.name, name, len(run.familiarity.features), len(run.familiarity.own), f"{result['test']['accuracy']:.4f}",
        f"{result['temperature']:.4f}", f"{result['test']['loss']:.4f}", f"{result['uncalibrated']['test']['loss']:.4f}",
    ]  # fmt: skip
    rows = []
    for task in sorted(path for path in data.iterdir() if (path / "test").is_dir()):
        answers = run.predict(pictures(task, OWN if task.name == name else STRANGERS), unsure=True)
        rows.append([*about, task.name, len(answers), sum(bool(row.unsure) for row in answers)])
        print(*rows[-1][1:], flush=True)
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [row for folder in sys.argv[3:] for row in measure(Run(Path(folder)), Path(sys.argv[1]))]
    write_atomic(Path(sys.argv[2]), csv_text(HEADER, rows))
