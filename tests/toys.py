"""Small networks and folders that many tests use."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from rekindle import Method, Tuner
from rekindle.training.listener import Silent


class Toy(nn.Module):
    """Two layers and a head; `norm` adds BatchNorm."""

    def __init__(self, classes: int = 3, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5) if norm else nn.Identity(), nn.Tanh())
        self.fc = nn.Linear(5, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


# The shortest run of the command on the pictures of `picture_folder`.
TINY_RUN: dict[str, Any] = {
    "model": "tiny", "epochs": 1, "image_size": 16, "batch_size": 4, "precision": "32", "workers": 0, "device": "cpu", "method": "l2", "lr": 0.05,
}  # fmt: skip


def text_of(found: Any) -> str:
    """All that a comparison says, a line for each row of its tables."""
    from rekindle.report.compare_tables import tables

    lines = [line for title, header, rows in tables(found) for line in (title, *(" | ".join(row) for row in (header, *rows)))]
    return "\n".join([*lines, *found.notes])


def toy(seed: int = 0, classes: int = 3, norm: bool = False) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Toy(classes, norm)


def toy_tuner(
    methods: list[Method], model: nn.Module | None = None, epochs: int = 8, steps: int = 3, **options: object
) -> tuple[nn.Module, Tuner, torch.optim.SGD]:
    model = model or toy()
    tuner = Tuner(model, methods, head="fc", epochs=epochs, steps_per_epoch=steps, **options)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01), momentum=0.9)
    return model, tuner, optimizer


def toy_batch(key: int, count: int = 6, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(key)
    return torch.randn(count, 4, generator=stream), torch.randint(classes, (count,), generator=stream)


def run_epochs(
    model: nn.Module, tuner: Tuner, optimizer: torch.optim.Optimizer, scheduler: object, epochs: range, stop: tuple[int, int] | None = None
) -> None:
    """The plain loop of the documentation, on toy batches keyed by (epoch, step); `stop` ends it before that step."""
    for epoch in epochs:
        tuner.start_epoch(epoch)
        for step in range(tuner._step, tuner.steps_per_epoch):
            if stop == (epoch, step):
                return
            x, y = toy_batch(1000 * epoch + step)
            tuner.loss(model, x, y, nn.functional.cross_entropy).backward()
            tuner.gradients_()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()  # type: ignore[attr-defined]


def picture_folder(root: Path, splits: dict[str, int], classes: int = 2, size: int = 40) -> Path:
    """Folders of class folders of noisy pictures whose colour tells the class; "" as a split makes a bare folder."""
    for number, (split, count) in enumerate(splits.items()):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([number, label, index])
                image = rng.integers(0, 120, (size, size + 4, 3))
                image[..., label % 3] += 100
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{index:03d}.png")
    return root


class Notes(Silent):
    """A listener that keeps the sentences, in a list of its own or in one that is given."""

    def __init__(self, kept: list[str] | None = None) -> None:
        self.kept: list[str] = [] if kept is None else kept

    def note(self, text: str) -> None:
        self.kept.append(text)
