"""The data that the source was trained on, for methods that look at them before training (the Fisher information)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rekindle import data as data_room
from rekindle.data.samples import Preprocessing, Samples
from rekindle.errors import UserError
from rekindle.training.listener import Listener


@dataclass(frozen=True)
class SourceData:
    """Training pictures of the source, in the target's preprocessing.

    Attributes:
        samples: Pictures, and the positions of their class folders in order of name as labels; -1 where there are no class folders.
        content: A hash of names, labels and bytes.
    """

    samples: Samples
    content: str

    @classmethod
    def load(cls, folder: str, preprocessing: Preprocessing, cache: "data_room.Cache | None", listener: Listener) -> "SourceData":
        """Read all pictures below a folder, or below its train folder where it has one.

        Raises:
            UserError: If there is no such folder, or no picture in it.
        """
        root = Path(folder)
        if not root.is_dir():
            raise UserError(f"--source-data {folder} is no folder; name one with pictures that the source was trained on, or leave it out.")
        root = root / "train" if (root / "train").is_dir() else root
        paths = data_room.find_images([root])
        pixels = data_room.Pixels.load(
            paths, preprocessing.edge, preprocessing.interpolation, cache=cache, note=listener.note,
            progress=lambda done: listener.progress("reading pictures of the source", done, len(paths)),
        )  # fmt: skip
        labels = _labels(root, paths)
        content = pixels.content_hash([path.relative_to(root).as_posix() for path in paths], labels)
        return cls(Samples(pixels, torch.arange(len(paths)), torch.tensor(labels), preprocessing), content)


def _labels(root: Path, paths: list[Path]) -> list[int]:
    places = [path.relative_to(root).parts for path in paths]
    if any(len(parts) == 1 for parts in places):
        return [-1] * len(paths)
    classes = {name: label for label, name in enumerate(sorted({parts[0] for parts in places}))}
    return [classes[parts[0]] for parts in places]


def one_pass(samples: Samples, size: int, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures at the centre crop and labels, in batches of one shuffled order."""
    for rows in data_room.order(len(samples), seed, 0).split(size):
        x = samples.evaluation(rows, device).to(memory_format=torch.channels_last)
        yield x, samples.labels[rows].to(device, non_blocking=True)
