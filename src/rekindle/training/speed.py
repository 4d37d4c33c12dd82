"""How fast the machine trains a network with its methods: a short trial on copies, which leaves no trace in any generator."""

import copy
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.errors import UserError
from rekindle.tuner import Criterion, Tuner

STEPS = 4
STILL = 1e-12  # A rate at which nothing moves.

Batch = Callable[[int], tuple[Tensor, Tensor]]


@dataclass
class Trial:
    """A copy of a run's network with methods of its own, to be trained for a few steps.

    Attributes:
        model: The copy, on its device.
        tuner: Around it, with `STEPS` steps an epoch.
        optimizer: Built from the tuner's groups.
        criterion: The task's loss.
        grad_accum_steps: Micro-batches a step.
        autocast: Makes the context of a forward pass. Each pass has its own: inside one, weights that were cast once are used again,
            whatever the optimiser has done to them since.
    """

    model: nn.Module
    tuner: Tuner
    optimizer: Optimizer
    criterion: Criterion
    grad_accum_steps: int = 1
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __post_init__(self) -> None:
        self.model.train()
        self.tuner.scheduler(self.optimizer)
        self.tuner.start_epoch(0)

    def step(self, x: Tensor, y: Tensor) -> float:
        """One optimiser step; the loss before it, penalties on activations included, infinite where training would stop."""
        losses = []
        for inputs, labels in zip(x.chunk(self.grad_accum_steps), y.chunk(self.grad_accum_steps), strict=True):
            with self.autocast():
                loss = self.tuner.loss(lambda part: self.model(part).float(), inputs, labels, self.criterion)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                return math.inf
            (loss / self.grad_accum_steps).backward()
        try:
            self.tuner.gradients_()
        except UserError:  # A direction met a gradient that is not finite.
            return math.inf
        self.optimizer.step()
        self.optimizer.zero_grad()
        return sum(losses) / len(losses)


def images_per_second(start: Callable[[float], Trial], batch: Batch, steps: int = 3) -> float:
    """Training speed, after one step of warm-up."""
    images = 0
    with torch.random.fork_rng(devices=_cuda_devices()):
        torch.manual_seed(0)
        trial = start(STILL)
        for number in range(steps + 1):
            if number == 1:
                _wait()
                began = time.perf_counter()
            x, y = batch(number)
            trial.step(x, y)
            images += len(y) if number else 0
        _wait()
        return images / (time.perf_counter() - began)


def seconds_per_image(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], criterion: Criterion, autocast: Callable[[], AbstractContextManager[Any]]
) -> float:
    """Time of forward and backward passes on a copy, which one batch warms up.

    Args:
        model: Its head in place.
        batches: At least two (inputs, labels) on the model's device.
        criterion: The task's loss.
        autocast: Makes the context of a forward pass.
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
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count()))
