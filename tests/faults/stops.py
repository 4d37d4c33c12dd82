"""Runs that are stopped by a signal after a step of training, as by Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from rekindle.errors import Stopped
from rekindle.training.trainer import Training


@dataclass
class Stop:
    """Which folder the stopped run said to go on with; it is known behind the block."""

    folder: Path = Path()


@contextmanager
def stopped_at(
    epoch: int, step: int, *, number: int = signal.SIGINT, when: Callable[[Training], bool] = lambda training: True
) -> Iterator[Stop]:
    """A block in which a run is stopped after a step, both counted from 0, and which must end by that.

    Args:
        epoch: In which it is stopped.
        step: After which.
        number: The signal.
        when: Whether this training, which has come so far, is the one.
    """
    stop, real = Stop(), Training._step

    def interrupted(self: Training, at_epoch: int, at_step: int, rows: torch.Tensor) -> None:
        real(self, at_epoch, at_step, rows)
        if (at_epoch, at_step) == (epoch, step) and when(self):
            signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped) as caught:
        patch.setattr(Training, "_step", interrupted)
        yield stop
    stop.folder = Path(str(caught.value))
