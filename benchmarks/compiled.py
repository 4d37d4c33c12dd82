"""What `torch.compile` gives a training step, and how long it takes to compile: why a run does not do it on a processor."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.epochs import bare, chooses_half
from benchmarks.machine import now

NETWORKS = {"torchvision:squeezenet1_0": 128, "torchvision:resnet18": 128, "tf_efficientnet_lite0": 128}
WARM = 2  # Steps that compile, and one that uses what was compiled.


def measure(rounds: int, only: Sequence[str], told: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each network: a compiled step over an ordinary one, in turn, and the seconds that compiling takes.

    Args:
        rounds: Pairs of steps.
        only: Networks; empty takes all.
        told: Given each row.
    """
    rows = []
    for name, size in NETWORKS.items():
        if only and name not in only:
            continue
        half = chooses_half(name, size)
        plain, compiled = bare(name, size, half), bare(name, size, half, torch.compile)
        plain()
        began = time.perf_counter()
        for _ in range(WARM):
            compiled()
        now()
        seconds = time.perf_counter() - began
        ratios = [_spent(compiled) / _spent(plain) for _ in range(rounds)]
        row = {
            "model": name, "image_size": size, "seconds": seconds,
            "low": min(ratios), "median": statistics.median(ratios), "high": max(ratios),
        }  # fmt: skip
        told(f"{name}: {row}")
        rows.append(row)
    return rows


def _spent(step: Callable[[], object]) -> float:
    began = now()
    step()
    return now() - began
