"""Small pictures for tests of tables, datasets and checks."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from rekindle.data import Dataset


def jpeg(seed: int, size: tuple[int, int] = (40, 36)) -> bytes:
    """A picture of noise of its own, as JPEG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write(folder: Path, count: int) -> list[str]:
    """Pictures 0.jpg, 1.jpg, ... in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    return [f"{number}.jpg" for number in range(count)]


def listed(dataset: Dataset, split: str) -> dict[str, str]:
    """{name: class} of a split."""
    part = dataset.splits[split]
    return {dataset.relative(picture): dataset.classes[label] for picture, label in zip(part.paths, part.labels.tolist(), strict=True)}
