"""Short trials before a run, with its methods, on copies: a learning rate that does not diverge, and how fast the machine is.

They leave no trace in the network, its methods or the global generators.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.errors import UserError
from rekindle.tuner import Criterion, Tuner

STEPS, EDGE = 40, 8
LADDER = (1.0, 0.3, 0.1, 0.03, 0.01)
LEARNING, STEADY = 0.95, 1.05
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


def find_lr(start: Callable[[float], Trial], batch: Batch, cap: float) -> float:
    """LR range test: `cap` if 40 training steps at `cap` lower the loss; otherwise one step below the best of 0.3, 0.1, 0.03, 0.01 x `cap`.

    Trials of 40 steps go down the ladder cap, 0.3 cap, 0.1 cap and so on. A rate is learning if the mean loss of the last 8 steps is
    below 95 % of what it was before training. The cap is taken if it is learning and 0.3 cap does no better. If a lower rung is best,
    higher rates hurt, and some harm shows only after more steps: the rung below it is taken. If none is learning yet, 0.1 cap, or
    the next rung at which the loss does not grow.

    Args:
        start: Makes a trial at a base learning rate.
        batch: step -> (inputs, labels) on the model's device.
        cap: Highest learning rate that is returned; the papers' rate.

    Returns:
        A base learning rate from 0.01 `cap` to `cap`.
    """
    first = _mean_loss(start, batch, STILL, EDGE)
    best, least, rung = None, math.inf, 0
    for rung, share in enumerate(LADDER[:-1]):
        last = _mean_loss(start, batch, cap * share, STEPS)
        if last < LEARNING * first and last < least:
            best, least = rung, last
        elif best is not None or (rung >= 2 and last < STEADY * first):
            break
    else:
        rung += 1  # The loss grew even at the last rung that was tried.
    if best is None:
        return cap * LADDER[rung]
    return cap if best == 0 else cap * LADDER[best + 1]


def _mean_loss(start: Callable[[float], Trial], batch: Batch, rate: float, steps: int) -> float:
    """Mean loss of the last of some steps, infinite if training would stop."""
    losses: list[float] = []
    with torch.random.fork_rng(devices=_cuda_devices()):
        torch.manual_seed(0)
        trial = start(rate)
        for number in range(steps):
            losses.append(trial.step(*batch(number)))
            if not math.isfinite(losses[-1]):
                return math.inf
    return sum(losses[-EDGE:]) / EDGE


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


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count()))
