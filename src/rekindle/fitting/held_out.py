"""What the networks of a cross-validation say of pictures that they have not seen."""

from pathlib import Path

import torch
from torch import Tensor

from rekindle.data import Dataset
from rekindle.errors import UserError, some
from rekindle.records import ANSWERS, folds_of, read_probabilities

FILE = "predictions.csv"
BEFORE = "p_"  # The name of a class, at the head of its column.


def held_out(folder: Path, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Probabilities by the networks of a cross-validation: of a picture in its folds by the one that held it out, of a test picture by all.

    Args:
        folder: What `rekindle fit --folds` made.
        dataset: What it was trained on; pictures that it left out are left out here.

    Returns:
        (M,) places of the pictures, counted through the splits of the dataset in their order, and (M, C) probabilities.

    Raises:
        UserError: If the folder holds no finished folds, or they are of other classes or pictures.
    """
    if not folds_of(folder):
        raise UserError(f"{folder} is no cross-validation; --predictions takes a folder that rekindle fit --folds made.")
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} has not finished; continue it with rekindle fit --resume {folder}")
    said = _said(folder, "val", dataset.classes)
    for run in sorted(spec.parent for spec in folder.glob("*/spec.yaml")):
        for name, rows in _said(run, "test", dataset.classes).items():
            said.setdefault(name, []).extend(rows)
    names = [dataset.relative(path) for split in dataset.splits.values() for path in split.paths]
    places = [place for place, name in enumerate(names) if name in said]
    if not places:
        raise UserError(f"{folder} has no prediction for a picture of these data; give --predictions their folds.")
    return torch.tensor(places), torch.stack([torch.tensor(said[names[place]], dtype=torch.float64).mean(0) for place in places])


def _said(folder: Path, split: str, classes: list[str]) -> dict[str, list[list[float]]]:
    """The rows of probabilities for each picture of a split."""
    said: dict[str, list[list[float]]] = {}
    for row in read_probabilities(folder, split):
        shares = {name.removeprefix(BEFORE): value for name, value in row.items() if name.startswith(BEFORE)}
        if list(shares) != classes:
            raise UserError(
                f"{folder} was trained on the classes {some(list(shares))}, and here are {some(classes)}; give --predictions the folds of these data."
            )
        with ANSWERS.surprises(folder / FILE):
            said.setdefault(row["path"], []).append([float(str(value)) for value in shares.values()])
    return said
