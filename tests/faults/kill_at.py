"""Run `rekindle.fit` in processes that kill themselves, without warning, each at a named point. Usage: kill_at.py OPTIONS-AS-JSON POINT...

Each run goes to the folder named as its point below the option `out`. What all of them import is imported once, before they are forked.
"""

import json
import os
import signal
import sys
import traceback
from typing import Any

import torch

import rekindle
import rekindle.report.run_page
from rekindle import files
from rekindle.fitting import job  # noqa: F401
from rekindle.methods.restarts import rifle
from rekindle.training import trainer


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


def fit(point: str, options: dict[str, Any]) -> int:
    """Train in a child process, and return its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        arm(point)
        rekindle.fit(**{**options, "out": f"{options['out']}/{point}"})
    except BaseException:  # noqa: BLE001  The test wants to see it.
        traceback.print_exc()
    finally:
        os._exit(1)  # It ought to be dead by now.


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({point: fit(point, json.loads(sys.argv[1])) for point in sys.argv[2:]}))
