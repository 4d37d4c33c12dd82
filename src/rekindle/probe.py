"""Short trials before a run: a learning rate that does not diverge, and how fast the machine is. They leave no trace."""

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS, LAST = 24, 8
LADDER = (1.0, 0.3, 0.1, 0.03, 0.01)

Batch = Callable[[int], tuple[Tensor, Tensor]]
MakeOptimizer = Callable[[nn.Module, float], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


def find_lr(model: nn.Module, make_optimizer: MakeOptimizer, criterion: Loss, batch: Batch, cap: float) -> float:
    """`cap` where a short trial does as well there as at a lower rate, or else a rate safely below those that do badly.

    Trials of 24 steps go down the ladder cap, 0.3 cap, 0.1 cap ... until the loss of the last 8 steps gets no better. If it
    is not the first rung that is best, higher rates hurt, and some harm shows only after more steps: the rung below the
    best one is taken.

    Args:
        model: Trained on copies; the model itself and the global generators are left as they were.
        make_optimizer: (model, rate) -> optimiser of the run's kind.
        criterion: (logits, labels) -> scalar.
        batch: step -> (inputs, labels) on the model's device.
        cap: Highest answer; the papers' rate.
    """
    best, least = 0, math.inf
    for rung, share in enumerate(LADDER):
        loss = _trial_loss(model, make_optimizer, criterion, batch, cap * share)
        if loss >= least:
            break
        best, least = rung, loss
    return cap if best == 0 else cap * LADDER[min(best + 1, len(LADDER) - 1)]


def _trial_loss(model: nn.Module, make_optimizer: MakeOptimizer, criterion: Loss, batch: Batch, rate: float) -> float:
    """Mean loss of the last steps of a short training on a copy; infinity if it is not finite."""
    trial = copy.deepcopy(model).train()
    losses = []
    with torch.random.fork_rng(devices=_cuda_devices()):
        torch.manual_seed(0)
        optimizer = make_optimizer(trial, rate)
        for step in range(STEPS):
            x, y = batch(step)
            loss = criterion(trial(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                return math.inf
    return sum(losses[-LAST:]) / LAST


def images_per_second(model: nn.Module, criterion: Loss, batch: Batch, steps: int = 3) -> float:
    """Training speed, measured on a copy after one step of warm-up."""
    trial = copy.deepcopy(model).train()
    images = 0
    with torch.random.fork_rng(devices=_cuda_devices()):
        for step in range(steps + 1):
            if step == 1:
                _wait()
                began = time.perf_counter()
            x, y = batch(step)
            criterion(trial(x).float(), y).backward()
            images += len(y) if step else 0
        _wait()
        return images / (time.perf_counter() - began)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cuda_devices() -> list[int]:
    return list(range(torch.cuda.device_count()))
