"""Training pictures that a method keeps out of training: which they are, for a run and for whoever goes by its pictures later."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from rekindle.data import Dataset
from rekindle.data.dataset import Split
from rekindle.data.splits import withhold
from rekindle.errors import UserError, number_of
from rekindle.method import Method

HELD_OUT = "held_out"  # The split that they are, beside those of the data.


def withheld_share(methods: Sequence[Method]) -> float:
    """The share of the training pictures that is left out of training: the largest that a method asks for.

    Returns:
        A share from 0 to below 1.
    """
    return max((method.held_out for method in methods), default=0.0)


def divided(dataset: Dataset, methods: Sequence[Method], seed: int, data: str) -> tuple[Dataset, Tensor, Tensor]:
    """The data with what the methods hold out as a split of its own, and a note on it as the last of theirs.

    Args:
        dataset: With a training split.
        methods: At least one with `Method.held_out`.
        seed: Of the run.
        data: What the data are called where they have too few pictures.

    Returns:
        (data, positions that stay, positions held out), both in the training split that was given.

    Raises:
        UserError: If nothing can be held out; it names why.
    """
    names = " and ".join(method.name for method in methods if method.held_out)
    kept, held = withhold(dataset, withheld_share(methods), seed)
    if not len(held) or not len(kept):
        raise UserError(f"{names} needs training pictures to hold out, and {_why_none(dataset, data)}, or leave {names} out.")
    train = dataset.splits["train"]
    note = f"{names}: {len(held)} of the {number_of(len(train.paths), 'training picture')} are held out; nothing else is trained on them."
    splits = {"train": _part(train, kept), HELD_OUT: _part(train, held)}
    others = {name: split for name, split in dataset.splits.items() if name != "train"}
    return replace(dataset, splits=splits | others, notes=[*dataset.notes, note]), kept, held


def _part(split: Split, rows: Tensor) -> Split:
    return Split([split.paths[row] for row in rows.tolist()], split.labels[rows])


def _why_none(dataset: Dataset, data: str) -> str:
    """Why no picture can be held out, and what would help."""
    if dataset.groups:
        count = len({dataset.groups.get(picture, picture) for picture in dataset.splits["train"].paths})
        return f"those of {data} are in {number_of(count, 'group')}, which leaves none to spare; add groups"
    if dataset.choices.get("per_class") is not None:
        return f"--per-class {dataset.choices['per_class']} leaves none to spare; give --per-class 2 or more"
    if dataset.choices.get("fraction") is not None:
        return f"--fraction {dataset.choices['fraction']:g} leaves none to spare; give a larger one"
    return f"each class of {data} has only one; add pictures"
