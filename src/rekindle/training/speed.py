"""How fast the machine trains a network, with its methods or alone."""

import copy
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.tuner import Criterion, Tuner

STEPS = 6


@dataclass
class Trial:
    """A network with methods of its own, to be trained for a few steps.

    Attributes:
        model: On its device.
        tuner: Around it, with `STEPS` steps an epoch.
        optimizer: Built from the tuner's groups.
        criterion: The task's loss.
        autocast: Makes the context of a forward pass. Each pass has its own: inside one, weights that were cast once are used again,
            whatever the optimiser has done to them since.
    """

    model: nn.Module
    tuner: Tuner
    optimizer: Optimizer
    criterion: Criterion
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __post_init__(self) -> None:
        self.model.train()
        self.tuner.scheduler(self.optimizer)
        self.tuner.start_epoch(0)

    def step(self, x: Tensor, y: Tensor) -> None:
        """One optimiser step."""
        with self.autocast():
            loss = self.tuner.loss(lambda part: self.model(part).float(), x, y, self.criterion)
        loss.backward()
        self.tuner.gradients_()
        self.optimizer.step()
        self.optimizer.zero_grad()


def images_per_second(trial: Trial, x: Tensor, y: Tensor) -> float:
    """Training speed on one batch: that of the median of `STEPS` - 1 steps after one of warm-up, since other work may hold up any of them.

    Returns:
        Pictures a second, above 0.
    """
    seconds = []
    for _ in range(STEPS):
        _wait()
        began = time.perf_counter()
        trial.step(x, y)
        _wait()
        seconds.append(time.perf_counter() - began)
    return len(y) / median(seconds[1:])


def seconds_per_image(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], criterion: Criterion, autocast: Callable[[], AbstractContextManager[Any]]
) -> float:
    """Time of forward and backward passes on a copy, which one batch warms up.

    Args:
        model: Its head in place.
        batches: At least two (inputs, labels) on the model's device.
        criterion: The task's loss.
        autocast: Makes the context of a forward pass.

    Returns:
        Seconds, above 0.
    """
    twin = copy.deepcopy(model).train()
    images, began = 0, 0.0
    for number, (x, y) in enumerate(batches):
        if number == 1:
            _wait()
            began = time.perf_counter()
        with autocast():
            outputs = twin(x)
        criterion(outputs.float(), y).backward()
        images += len(y) if number else 0
    _wait()
    return (time.perf_counter() - began) / images


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
