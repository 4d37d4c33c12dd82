"""Short trials before a run: a learning rate that does not diverge, and how fast the machine is. They leave no trace."""

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS, EDGE = 40, 8
LADDER = (1.0, 0.3, 0.1, 0.03)
LEARNING = 0.95

Batch = Callable[[int], tuple[Tensor, Tensor]]
MakeOptimizer = Callable[[nn.Module, float], torch.optim.Optimizer]
Loss = Callable[[Tensor, Tensor], Tensor]


def find_lr(model: nn.Module, make_optimizer: MakeOptimizer, criterion: Loss, batch: Batch, cap: float) -> float:
    """The papers' rate where a short trial shows that the network takes it, or else a safely lower one.

    Trials of 40 steps go down the ladder cap, 0.3 cap, 0.1 cap. A rate is learning if the mean loss of its last 8 steps is
    below 95 % of that of its first 8. The cap is taken if it is learning and 0.3 cap does no better. If a lower rung is best,
    higher rates hurt, and some harm shows only after more steps: the rung below it is taken. If none is learning yet, 0.1 cap.

    Args:
        model: Trained on copies; the model itself and the global generators are left as they were.
        make_optimizer: (model, rate) -> optimiser of the run's kind.
        criterion: (logits, labels) -> scalar.
        batch: step -> (inputs, labels) on the model's device.
        cap: Highest answer; the papers' rate.
    """
    best, least = None, math.inf
    for rung, share in enumerate(LADDER[:3]):
        first, last = _trial(model, make_optimizer, criterion, batch, cap * share)
        if last < LEARNING * first and last < least:
            best, least = rung, last
        elif best is not None:
            break
    if best is None:
        return cap * LADDER[2]
    return cap if best == 0 else cap * LADDER[best + 1]


def _trial(model: nn.Module, make_optimizer: MakeOptimizer, criterion: Loss, batch: Batch, rate: float) -> tuple[float, float]:
    """Mean loss of the first and of the last steps of a short training on a copy; the last is infinite if a loss is not finite."""
    trial = copy.deepcopy(model).train()
    losses: list[float] = []
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
                return 0.0, math.inf
    return sum(losses[:EDGE]) / EDGE, sum(losses[-EDGE:]) / EDGE


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
