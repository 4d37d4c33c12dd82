"""An epoch of a run with frozen layers whose activations are stored, over one that computes them at each step."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import rekindle
from benchmarks.machine import now
from benchmarks.pictures import CLASSES, picture_folder
from rekindle.training.allocator import keep_freed_memory
from rekindle.training.frozen import FrozenPart
from rekindle.training.listener import Silent

SIZE, VIEWS = 128, 2
STAGES = {
    "torchvision:squeezenet1_0": ("features.7", "features.12"), "torchvision:resnet18": ("layer1", "layer2", "layer4"),
    "tf_efficientnet_lite0": ("blocks.3", "bn2"),
}  # fmt: skip
SPLITS = {"train": 160 // CLASSES, "val": 4, "test": 1}  # Pictures a class.


def measure(rounds: int, only: Sequence[str], told: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each network and last frozen stage: processor time of an epoch, its validation included, over that without storing.

    Args:
        rounds: Epochs of each side, after those in which activations are stored.
        only: Networks; empty takes all.
        told: Given each row.
    """
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = picture_folder(Path(folder, "photos"), SPLITS)
        for name, until in ((name, until) for name, stages in STAGES.items() if not only or name in only for until in stages):
            stored = _epochs(pictures, Path(folder, "stored"), name, until, rounds)
            with patch.object(FrozenPart, "look", lambda *_: False):
                computed = _epochs(pictures, Path(folder, "computed"), name, until, rounds)
            ratios = [one / other for one, other in zip(stored, computed, strict=True)]
            row = {"model": name, "until": until, "low": min(ratios), "median": statistics.median(ratios), "high": max(ratios)}
            told(f"{name} frozen up to {until}: {row['median']:.2f}")
            rows.append(row)
    return rows


def _epochs(pictures: Path, out: Path, name: str, until: str, rounds: int) -> list[float]:
    """Seconds of the processor, an epoch each."""
    clock = _Clock()
    rekindle.fit(
        pictures, out=out, model=name, weights="none", image_size=SIZE, epochs=VIEWS + rounds, freeze=until, views=VIEWS, method="l2",
        cache=False, workers=0, listener=clock,
    )  # fmt: skip
    return [after - before for before, after in zip(clock.ends[VIEWS - 1 :], clock.ends[VIEWS:], strict=False)]


class _Clock(Silent):
    """When epochs ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch(self, record: dict[str, Any]) -> None:
        self.ends.append(now())
