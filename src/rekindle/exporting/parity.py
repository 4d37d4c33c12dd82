"""Whether an exported file answers as its run does, picture by picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rekindle import data as data_room
from rekindle.data import Picture
from rekindle.data.samples import Preprocessing
from rekindle.errors import UserError, number_of
from rekindle.run import BATCH, Run

CLOSE = 1e-3  # Largest difference of a probability: another runtime adds in another order, and multiplies in another precision.


@dataclass(frozen=True)
class Parity:
    """How far two ways to the same answers are apart.

    Attributes:
        pictures: How many were compared.
        same_class: On how many the most probable class is the same.
        largest_difference: Of any probability.
    """

    pictures: int
    same_class: int
    largest_difference: float


def answers_of_run(run: Run, pictures: Sequence[Picture]) -> Tensor:
    """Probabilities (N, C) as `rekindle predict` has them.

    Returns:
        (N, C) float32, rows of sum 1.
    """
    preprocessing = Preprocessing.from_recipe(run.model[1])
    parts = [
        run.probabilities([preprocessing.pixels(picture) for picture in pictures[start : start + BATCH]])
        for start in range(0, len(pictures), BATCH)
    ]
    return torch.cat(parts)


def answers_of_onnx(path: Path, pictures: Sequence[Picture]) -> Tensor:
    """Probabilities (N, C) of an exported file, under onnxruntime on the processor.

    Returns:
        (N, C) float32, rows of sum 1.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"image": data_room.decode_whole(picture)})[0] for picture in pictures]
    return torch.from_numpy(np.stack(rows))


def compare(expected: Tensor, found: Tensor) -> Parity:
    """Compare probabilities (N, C). Two classes as probable as each other, within twice `CLOSE`, count as the same.

    Returns:
        The largest difference, and on how many pictures the classes agree.
    """
    same = expected.argmax(1) == found.argmax(1)
    tied = expected.max(1).values - expected.gather(1, found.argmax(1, keepdim=True))[:, 0] <= 2 * CLOSE
    difference = float((expected - found).abs().nan_to_num(torch.inf).max())
    return Parity(len(expected), int((same | tied).sum()), difference)


def require_parity(what: str, parity: Parity, remove: Callable[[], None]) -> None:
    """Refuse an export that answers otherwise, and remove it.

    Raises:
        UserError: With the figures.
    """
    if parity.same_class < parity.pictures or not parity.largest_difference <= CLOSE:
        remove()
        raise UserError(
            f"the exported {what} answers otherwise than the run, so it was removed: the class is the same on {parity.same_class} of "
            f"{number_of(parity.pictures, 'picture')}, and probabilities differ by up to {parity.largest_difference:.2g} (allowed is {CLOSE:g})."
        )
