"""Checked data: classes, splits, and what data.json says of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.data.formats.images import Picture, TableImage

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Pictures of one split and their classes, (N,) int64."""

    paths: list[Picture]
    labels: "Tensor"


@dataclass(frozen=True)
class Dataset:
    """A checked folder or table.

    Attributes:
        root: The folder, or that of the table.
        classes: Class names; label i is `classes[i]`. Sorted by Unicode code point, or in the official order of a benchmark task.
        splits: "train" and, where there is one, "val" and "test"; in a run with `Method.held_out` also "held_out", which is in no other.
        notes: Sentences on what was left out or is unusual.
        choices: Seed, fractions and subset size that the splits came from.
        cautions: Sentences on why figures measured on the splits may mislead.
        groups: What each picture belongs to, such as its patient; empty where nobody asked.
    """

    root: Path
    classes: list[str]
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)
    cautions: list[str] = field(default_factory=list)
    groups: dict[Picture, str] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """{split: {class: pictures}}.

        Returns:
            Counts for each split and class that is there, in the order of the classes.
        """
        found = {name: Counter(split.labels.tolist()) for name, split in self.splits.items()}
        return {name: {kind: count[label] for label, kind in enumerate(self.classes)} for name, count in found.items()}

    def relative(self, picture: Picture) -> str:
        """A picture's name: its path inside the folder with forward slashes (all of it for one outside), or that of its cell.

        Returns:
            A name that `find` takes back.
        """
        return name_in(self.root, picture)

    def find(self, name: str) -> Picture:
        """The picture of a name that `relative` gave.

        Returns:
            The picture.
        """
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Picture]:
        return {self.relative(picture): picture for split in self.splits.values() for picture in split.paths}

    def to_json(self) -> dict[str, Any]:
        """What data.json holds: enough to make the same splits again.

        Returns:
            Plain values: classes, counts, splits and the rules behind them.
        """
        counts = self.counts()
        files = {name: [self.relative(path) for path in split.paths] for name, split in self.splits.items()}
        return {
            "classes": self.classes,
            "counts": counts,
            "imbalance": imbalance(counts["train"]),
            **self.choices,
            "notes": [*self.notes, *self.cautions],
            "files": files,
        }


def name_in(root: Path, picture: Picture) -> str:
    """A picture's name in the data that lie in `root`; see `Dataset.relative`.

    Returns:
        A text that names the picture on every machine.
    """
    if isinstance(picture, TableImage):
        return picture.name
    return (picture.relative_to(root) if picture.is_relative_to(root) else picture).as_posix()


def imbalance(counts: dict[str, int]) -> dict[str, Any]:
    """The largest and the smallest class by name, their counts, and the first count over the second (at least 1).

    Returns:
        {"largest", "most", "smallest", "fewest", "ratio"}; the ratio counts an empty class as one picture.

    Examples:
        >>> imbalance({"dress": 90, "hat": 30})["ratio"]
        3.0
    """
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return {
        "largest": largest, "most": counts[largest], "smallest": smallest, "fewest": counts[smallest],
        "ratio": round(counts[largest] / max(1, counts[smallest]), 2),
    }  # fmt: skip


def contradictions(dataset: Dataset, hashes: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of equal pictures that have different labels, by name; `hashes` follow the splits' order.

    Args:
        dataset: The pictures.
        hashes: Of each picture's bytes, in the order of the splits.

    Returns:
        Pairs of names, in the order of the splits.
    """
    seen: dict[str, tuple[int, str]] = {}
    pairs = []
    rows = ((int(label), path) for split in dataset.splits.values() for path, label in zip(split.paths, split.labels.tolist(), strict=True))
    for (label, path), digest in zip(rows, hashes, strict=True):
        first = seen.setdefault(digest, (label, dataset.relative(path)))
        if first[0] != label:
            pairs.append((first[1], dataset.relative(path)))
    return pairs


def duplicates(dataset: Dataset, hashes: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of equal pictures in different splits, by name; `hashes` follow the splits' order.

    Args:
        dataset: The pictures.
        hashes: Of each picture's bytes, in the order of the splits.

    Returns:
        Pairs of names, the first in the earlier split.
    """
    seen: dict[str, tuple[str, str]] = {}
    pairs = []
    rows = ((name, path) for name, split in dataset.splits.items() for path in split.paths)
    for (name, path), digest in zip(rows, hashes, strict=True):
        first = seen.setdefault(digest, (name, dataset.relative(path)))
        if first[0] != name:
            pairs.append((first[1], dataset.relative(path)))
    return pairs
