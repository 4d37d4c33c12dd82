"""`rekindle.fit` in a process that kills itself, without warning, at a named point."""

import os
import signal
from typing import Any

import torch

import rekindle
from rekindle import files
from rekindle.methods.restarts import rifle
from rekindle.training import trainer
from tests.faults.warm import draw_nothing


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Patch the product so that it dies there."""
    step, drawn, flush = trainer.Training._step, rifle.reinitialize_, os.fsync
    flushes = []

    def dying_step(self: trainer.Training, epoch: int, number: int, rows: torch.Tensor) -> None:
        if (point, epoch, number) in (("before_first_checkpoint", 0, 1), ("mid_epoch", 2, 1)):
            die()
        step(self, epoch, number, rows)

    def dying_draw(modules: list[torch.nn.Module], stream: torch.Generator, scale: float) -> None:
        if point == "before_draw":
            die()
        drawn(modules, stream, scale)
        if point == "after_draw":
            die()

    def dying_flush(handle: int) -> None:
        flushes.append(handle)
        name = os.readlink(f"/proc/self/fd/{handle}") if point == "while_saving" else ""
        if "epoch00003" in name:
            os.truncate(handle, os.fstat(handle).st_size // 2)
            die()
        flush(handle)

    trainer.Training._step = dying_step  # type: ignore[method-assign]
    rifle.reinitialize_ = dying_draw
    files.os.fsync = dying_flush  # type: ignore[attr-defined]


def fit_until(point: str, options: dict[str, Any]) -> int:
    """Train in this process, which ought to be dead before this returns."""
    arm(point)
    trainer.SPARSELY = 0  # A checkpoint after each epoch.
    draw_nothing()
    rekindle.fit(**options)
    return 1
