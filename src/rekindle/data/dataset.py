"""A checked folder: classes, splits, and what data.json says of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Pictures of one split and their classes, (N,) int64."""

    paths: list[Path]
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A checked folder.

    Attributes:
        root: The folder.
        classes: Names in code-point order; a label is a position in it.
        splits: "train", "val" and, where there is one, "test".
        notes: Sentences on what was left out or is unusual.
        choices: Seed, fractions and subset size that the splits came from.
    """

    root: Path
    classes: list[str]
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """{split: {class: pictures}}."""
        return {
            name: dict(zip(self.classes, torch.bincount(split.labels, minlength=len(self.classes)).tolist(), strict=True))
            for name, split in self.splits.items()
        }

    def relative(self, path: Path) -> str:
        """A picture's path inside the folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def to_json(self) -> dict[str, Any]:
        """What data.json holds: enough to make the same splits again."""
        files = {name: [self.relative(path) for path in split.paths] for name, split in self.splits.items()}
        return {"classes": self.classes, "counts": self.counts(), **self.choices, "notes": self.notes, "files": files}


def duplicates(dataset: Dataset, hashes: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of equal pictures in different splits, as relative paths; `hashes` follow the splits' order."""
    seen: dict[str, tuple[str, str]] = {}
    pairs = []
    rows = ((name, path) for name, split in dataset.splits.items() for path in split.paths)
    for (name, path), digest in zip(rows, hashes, strict=True):
        first = seen.setdefault(digest, (name, dataset.relative(path)))
        if first[0] != name:
            pairs.append((first[1], dataset.relative(path)))
    return pairs
