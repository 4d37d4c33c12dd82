"""What the folder of every finished run holds, be it of one training or of a mean of several."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.analysis import summarize
from rekindle.analysis.classification import reliability
from rekindle.analysis.familiarity import Familiarity
from rekindle.data import order
from rekindle.data.samples import Samples
from rekindle.errors import UserError
from rekindle.fitting.look import chosen_rows, features_at
from rekindle.fitting.workload import KNOWN
from rekindle.training.listener import Listener


def figures(
    found: dict[str, Tensor], answers: dict[str, Tensor], temperature: float, splits: dict[str, Samples], classes: list[str]
) -> dict[str, Any]:
    """What result.json says of how good a network is.

    Args:
        found: Logits (N, C) by split.
        answers: Their probabilities at the temperature.
        temperature: The one that was chosen.
        splits: With the labels.
        classes: Names.
    """
    return {
        "temperature": temperature,
        "uncalibrated": {name: reliability(logits.softmax(1), splits[name].labels) for name, logits in found.items()},
        **{name: summarize(p, splits[name].labels, classes) for name, p in answers.items()},
    }


def learn_familiarity(
    folder: Path, model: nn.Module, splits: dict[str, Samples], answers: dict[str, Tensor], seed: int, device: torch.device, listener: Listener,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:  # fmt: skip
    """Keep what strangers are told by: features of training pictures, and how familiar validation pictures are; without these, nothing.

    Training pictures, the most by far, are read inside `autocast`, and validation pictures as `predict` reads its own.
    """
    if "val" not in answers:
        return
    train, val = splits["train"], splits["val"]
    known, own = chosen_rows(train.labels, seed)[:KNOWN], order(len(val), seed, 0)[:KNOWN]
    try:
        with autocast():
            training = features_at(model, train, known, device, listener.progress)
        validation = features_at(model, val, own, device, listener.progress)
    except UserError as error:
        listener.note(f"predict --unsure will not work with this run: {error}")
        return
    Familiarity.learn(training, validation, answers["val"][own]).write(folder)
