"""A run's epoch against loops that are written by hand, and against the bare step: forward, backward, optimiser."""

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import rekindle
from benchmarks.machine import DEVICE, now
from benchmarks.pictures import CLASSES, picture_folder
from rekindle import models
from rekindle.training.allocator import keep_freed_memory
from rekindle.training.listener import Silent
from rekindle.training.precision import automatic_precision

NETWORKS = {"torchvision:squeezenet1_0": 128, "torchvision:resnet18": 128, "tf_efficientnet_lite0": 128, "torchvision:resnet50": 224}
BATCH, STEPS = 32, 50 if DEVICE.type == "cuda" else 5
SPLITS = {"train": BATCH * STEPS // CLASSES, "val": 1, "test": 1}  # Pictures a class.


def measure(rounds: int, only: Sequence[str], told: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each network, and one more in float32 where a run chooses bfloat16.

    It holds a run's step over that of the hand-written loop, both over the bare step, the share outside it, and the plain loop over the run.

    Args:
        rounds: Epochs, after one of warm-up.
        only: Networks; empty takes all.
        told: Given each row.
    """
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = picture_folder(Path(folder, "photos"), SPLITS)
        for name, size in ((name, size) for name, size in NETWORKS.items() if not only or name in only):
            for half in sorted({chooses_half(name, size), False}, reverse=True):
                turns = _Turns(name, size, half, pictures)
                rekindle.fit(
                    pictures, out=folder, model=name, weights="none", image_size=size, batch_size=BATCH, epochs=1 + rounds, method="l2",
                    precision="bf16" if half else "32", augment="none", cache=False, listener=turns,
                )  # fmt: skip
                row = {"model": name, "image_size": size, "format": "bfloat16" if half else "float32", **_ratios(turns.found[1:])}
                told(f"{name}: {row}")
                rows.append(row)
    return rows


def chooses_half(name: str, size: int) -> bool:
    """Whether a run of the network takes bfloat16 here."""
    return automatic_precision(models.build(name, weights="none").module, size) == "bf16"


class _Turns(Silent):
    """Takes the time of a run's steps, its first one of an epoch left out, and then gives the others as many."""

    def __init__(self, name: str, size: int, half: bool, pictures: Path) -> None:
        self._others, self._began = [_by_hand(name, size, half), bare(name, size, half), _plain(name, size, pictures)], 0.0
        self.found: list[tuple[float, ...]] = []

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        if step == 1:
            self._began = now()
        if step == steps:
            self.found.append((now() - self._began, *(self._spent(other, steps - 1) for other in self._others)))

    def _spent(self, other: Callable[[], object], steps: int) -> float:
        began = now()
        for _ in range(steps):
            other()
        return now() - began


def _ratios(found: list[tuple[float, ...]]) -> dict[str, Any]:
    """Median and range over epochs."""
    columns = {
        "over_hand": [run / hand for run, hand, _, _ in found],
        "over_bare": [run / bare for run, _, bare, _ in found],
        "hand_over_bare": [hand / bare for _, hand, bare, _ in found],
        "outside": [1 - bare / run for run, _, bare, _ in found],
        "plain_over_run": [plain / run for run, _, _, plain in found],
    }
    return {name: {"low": min(values), "median": statistics.median(values), "high": max(values)} for name, values in columns.items()}


def _stepper(
    name: str, size: int, half: bool, wrapped: Callable[[nn.Module], Any] = lambda model: model, plain: bool = False
) -> Callable[[Tensor, Tensor], Tensor]:
    """What everyone writes: one step of SGD with weight decay, which returns the loss; channels last, or plainly in torch's own format."""
    memory_format = torch.contiguous_format if plain else torch.channels_last
    model = models.build(name, weights="none").module.train()
    models.replace_classifier(model, CLASSES)
    called = wrapped(model.to(DEVICE, memory_format=memory_format))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(DEVICE.type, torch.bfloat16) if half else nullcontext():
            loss = nn.functional.cross_entropy(called(x.to(DEVICE, memory_format=memory_format)).float(), y.to(DEVICE))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def bare(name: str, size: int, half: bool, wrapped: Callable[[nn.Module], Any] = lambda model: model) -> Callable[[], Tensor]:
    """The step alone, on one batch.

    Args:
        name: Of the network, which has random weights.
        size: Of its pictures.
        half: Whether in bfloat16.
        wrapped: Given the network; what it returns is called in its place, such as `torch.compile`.
    """
    x = torch.rand(BATCH, 3, size, size, device=DEVICE).to(memory_format=torch.channels_last)
    return partial(_stepper(name, size, half, wrapped), x, torch.arange(BATCH, device=DEVICE) % CLASSES)


def _by_hand(name: str, size: int, half: bool) -> Callable[[], float]:
    """Steps on random crops of pictures that lie decoded in memory, mirrored by chance."""
    edge = round(size * 256 / 224)
    pictures = torch.randint(0, 256, (BATCH * STEPS, 3, edge, edge), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    batches = itertools.chain.from_iterable(iter(lambda: torch.randperm(len(pictures)).split(BATCH), None))
    step = _stepper(name, size, half)

    def crop(picture: Tensor) -> Tensor:
        top, left = torch.randint(0, edge - size + 1, (2,)).tolist()
        part = picture[:, top : top + size, left : left + size]
        return part.flip(2) if torch.rand(()) < 0.5 else part

    def take() -> float:
        rows = next(batches)
        x = torch.stack([(crop(pictures[row]).float() / 255 - mean) / std for row in rows.tolist()])
        return step(x, rows % CLASSES).item()

    return take


def _plain(name: str, size: int, pictures: Path) -> Callable[[], float]:
    """Steps as the papers' code has them: torchvision's folder and transforms, which decode each picture each time, and float32."""
    transform = v2.Compose(
        [
            v2.Resize(round(size * 256 / 224)), v2.RandomCrop(size), v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )  # fmt: skip
    folder = ImageFolder(str(pictures / "train"), transform)
    batches = itertools.chain.from_iterable(iter(lambda: DataLoader(folder, BATCH, shuffle=True), None))
    step = _stepper(name, size, half=False, plain=True)

    def take() -> float:
        x, y = next(batches)
        return step(x, y).item()

    return take
