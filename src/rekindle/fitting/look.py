"""One look at the features before training: how long they are, what a linear probe makes of them, which statistics suit BatchNorm.

Everything that a run chooses by itself rests on it, and the probe is the baseline that the run is held against.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.analysis.linear_probe import LinearProbe, fit_probe, mean_square
from rekindle.analysis.ranking import features_of
from rekindle.data import order
from rekindle.data.samples import Samples
from rekindle.errors import UserError, number_of
from rekindle.method import noop
from rekindle.models.structure import has_batchnorm

MOST = 3000  # Training pictures that are looked at.
WORSE = 1.25  # EfficientNet-Lite0 has 1.3 to 2.2 and loses as much when fine-tuned so; CIFAR ResNets have 1.0 to 1.25 and gain.
COMPARED = 600  # Of them, those that BatchNorm's statistics are chosen on.


@dataclass(frozen=True)
class Look:
    """What was seen of a pre-trained network's features on the training pictures.

    Attributes:
        features: (N, D) float64, in evaluation mode.
        labels: (N,).
        probe: Fitted to them.
        mean_square: E||f||^2.
    """

    features: Tensor
    labels: Tensor
    probe: LinearProbe
    mean_square: float

    def summary(self) -> dict[str, Any]:
        """What result.json says of it.

        Returns:
            Plain values.
        """
        return {"cross_validation": self.probe.accuracy, "strength": self.probe.strength, "mean_square": self.mean_square}


def look_at(
    module: nn.Module,
    train: Samples,
    seed: int,
    device: torch.device,
    looking: Callable[..., None] = noop,
    fitting: Callable[..., None] = noop,
) -> Look:
    """Look at the features of at most `MOST` training pictures at the centre crop.

    Args:
        module: The pre-trained network with its classifier; its mode is put back.
        train: The training split.
        seed: Key of the choice among more pictures.
        device: Where to compute.
        looking: Told (what, done, total) of the features.
        fitting: And of the probe.

    Returns:
        Features, labels, the probe, and the mean square of the features.

    Raises:
        UserError: If features are not finite, since nothing can be learnt from such a network.
    """
    rows = chosen_rows(train.labels, seed)
    features = features_at(module, train, rows, device, looking)
    broken = int((~features.isfinite().all(1)).sum())
    if broken:
        raise UserError(
            f"the pre-trained network's features are not finite for {broken} of {number_of(len(rows), 'training picture')}; its weights are damaged, "
            "or too large for this device: give other --weights, or another --model."
        )
    labels = train.labels[rows]
    return Look(features, labels, fit_probe(features, labels, fitting), mean_square(features))


def chosen_rows(labels: Tensor, seed: int) -> Tensor:
    """Which training pictures, of these labels, are looked at: each class at least once, since a probe knows no others.

    Returns:
        (M,) int64, M at most `MOST` or the number of classes.
    """
    rows = order(len(labels), seed, 0)
    _, firsts = np.unique(labels[rows].numpy(), return_index=True)
    needed = rows[torch.from_numpy(firsts)].sort().values
    rest = rows[~torch.isin(rows, needed)]
    return torch.cat([needed, rest])[: max(MOST, len(needed))]


def features_at(
    module: nn.Module, samples: Samples, rows: Tensor | None, device: torch.device, progress: Callable[..., None] = noop
) -> Tensor:
    """(N, D) features of some pictures, or of all; the network's mode is put back.

    Returns:
        (N, D) float64 on the CPU.
    """
    training = module.training
    total = len(samples) if rows is None else len(rows)
    found, _ = features_of(module, samples, lambda done: progress("looking at features", done, total), rows=rows, device=device)
    module.train(training)
    return torch.from_numpy(found)


def batchnorm_for(
    module: nn.Module, train: Samples, look: Look, seed: int, device: torch.device, batch_size: int, progress: Callable[..., None] = noop
) -> str:
    """The statistics that suit BatchNorm: those of each "batch", unless they spoil the features, and then the "frozen" ones of pre-training.

    They spoil them where a linear probe's log-loss in cross-validation is more than `WORSE` times as high with them. The loss, since accuracies of
    a few dozen pictures differ by luck. Where a class is too small for cross-validation, the frozen ones. A network without BatchNorm has no
    choice: "batch", which changes nothing.

    Returns:
        "frozen" or "batch".
    """
    if not has_batchnorm(module):
        return "batch"
    twin = copy.deepcopy(module)
    rows = chosen_rows(train.labels, seed)
    compared = rows[: max(COMPARED, len(train.labels.unique()))]  # Those of each class come first.
    with _batch_statistics(twin):
        features, _ = features_of(
            twin, train, lambda done: progress("looking at BatchNorm", done, len(compared)), rows=compared, device=device, batch=batch_size
        )
    if not np.isfinite(features).all():
        return "frozen"
    batch = fit_probe(torch.from_numpy(features), train.labels[compared], progress)
    frozen = look.probe if len(compared) == len(rows) else fit_probe(look.features[: len(compared)], look.labels[: len(compared)])
    return "batch" if batch.loss is not None and frozen.loss is not None and batch.loss <= WORSE * frozen.loss else "frozen"


@contextmanager
def _batch_statistics(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch though the network is in evaluation mode."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(lambda layer, _: setattr(layer, "training", True)) for norm in norms]
    yield
    for hook in hooks:
        hook.remove()
