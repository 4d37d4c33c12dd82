"""Short trials before a run: a learning rate that does not diverge, and how fast the machine is. They leave no trace.

The range test raises the rate from step to step until the loss grows (Smith, WACV 2017, arXiv 1506.01186, section 3.3).
"""

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

LOWEST, HIGHEST, STEPS = 1e-5, 1.0, 60
SMOOTHING = 0.8
GROWTH = 1.5
MARGIN = 10.0

Batch = Callable[[int], tuple[Tensor, Tensor]]


def find_lr(
    model: nn.Module, make_optimizer: Callable[[nn.Module, float], torch.optim.Optimizer], criterion: Callable[[Tensor, Tensor], Tensor], batch: Batch, cap: float
) -> float:
    """A tenth of the rate at which the smoothed loss is least before it grows, at most `cap`, to one significant digit.

    Args:
        model: Trained on a copy; the model itself and the global generators are left as they were.
        make_optimizer: (model, rate) -> optimiser of the run's kind.
        criterion: (logits, labels) -> scalar.
        batch: step -> (inputs, labels) on the model's device.
        cap: Highest answer.
    """
    trial = copy.deepcopy(model).train()
    factor = (HIGHEST / LOWEST) ** (1 / (STEPS - 1))
    rates, losses = [LOWEST * factor**step for step in range(STEPS)], []
    with torch.random.fork_rng(devices=_cuda_devices()):
        torch.manual_seed(0)
        optimizer = make_optimizer(trial, LOWEST)
        for step, rate in enumerate(rates):
            for group in optimizer.param_groups:
                group["lr"] = rate
            x, y = batch(step)
            loss = criterion(trial(x).float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            value = float(loss.detach())
            smoothed = value if not losses else SMOOTHING * losses[-1] + (1 - SMOOTHING) * value
            if not math.isfinite(smoothed) or (losses and smoothed > GROWTH * min(losses)):
                break
            losses.append(smoothed)
    best = min(range(len(losses)), key=losses.__getitem__, default=0)
    return min(cap, one_digit(rates[best] / MARGIN))


def one_digit(value: float) -> float:
    """Round down to one significant digit: 0.00347 -> 0.003."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.floor(value / power + 1e-9) * power:.1g}")


def images_per_second(model: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor], batch: Batch, steps: int = 3) -> float:
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
