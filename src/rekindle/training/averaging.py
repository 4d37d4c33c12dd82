"""An exponential moving average of a network's weights, by torch's `AveragedModel`.

BatchNorm's running statistics are averaged with the weights, at the same pace: they are averages over steps already, and new ones would
cost a pass over the training pictures. Where BatchNorm is frozen they never change.

After a restart, as of RIFLE's head, all of the average begins anew, not the head's alone: a head learns on the features of its own
steps, and the backbone's weights of the time before the draw belong to another one.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that `update_parameters` moves to the average; it takes the weights as they are first.

    Args:
        model: The network.
        decay: Weight of the average so far, above 0 and below 1. It rises to that from 2 / 11, so that the first steps, far from where
            training leads, are soon forgotten.

    Returns:
        A module of torch, on the network's device.
    """
    return AveragedModel(model, multi_avg_fn=partial(_move, decay), use_buffers=True)


def begin_anew(average: AveragedModel) -> None:
    """Let the next update take the weights as they are."""
    average.n_averaged.zero_()


@torch.no_grad()
def _move(decay: float, averages: list[Tensor], weights: list[Tensor], count: Tensor | int) -> None:
    steps = int(count)
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + steps) / (10 + steps)))
    else:  # Counts, such as BatchNorm's of batches.
        for average, weight in zip(averages, weights, strict=True):
            average.copy_(weight)
