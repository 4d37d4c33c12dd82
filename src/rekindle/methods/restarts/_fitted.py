"""When a restart can pay: the network has fitted its pictures, and enough steps are left for a fresh head."""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from rekindle.method import Batch

FITTED = 0.98
"""Training accuracy of an epoch from which on gradients are small: in the paper "most tasks completely fit the training set" midway."""

TIMES = 5
"""A fresh head gets at least this many times the steps that one needs on frozen features: the backbone is to follow it."""

LEARNT, BATCH = 0.5, 32  # Share of the loss of guessing at which a head counts as learnt: accuracy does not see how fast it grows.


class TrainingAccuracy:
    """Accuracy on the training pictures of the running epoch, over all ranks."""

    def __init__(self) -> None:
        self.hits: int | Tensor = 0  # A tensor, since a GPU is not to be waited for in each step.
        self.count = 0

    def add(self, batch: Batch) -> None:
        """Count a micro-batch; of a mixed picture the larger share counts."""
        labels = batch.labels.argmax(1) if batch.labels.is_floating_point() else batch.labels
        self.hits = self.hits + (batch.outputs.detach().argmax(1) == labels).sum()
        self.count += len(labels)

    def take(self) -> float:
        """The accuracy since the last call; 0 where nothing was counted."""
        sums = torch.tensor([int(self.hits), self.count], dtype=torch.float64)
        if dist.is_available() and dist.is_initialized():
            device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
            moved = sums.to(device)
            dist.all_reduce(moved)
            sums = moved.cpu()
        self.hits, self.count = 0, 0
        return float(sums[0] / sums[1].clamp(min=1))


def steps_of_a_fresh_head(features: Tensor, labels: Tensor, lr: float, momentum: float, most: int) -> int:
    """Steps of SGD, in batches of 32, until a linear layer that starts at zero has half the loss of guessing on its pictures.

    Args:
        features: (N, D) that the head reads.
        labels: (N,).
        lr: The head's learning rate.
        momentum: The optimiser's.
        most: Give up after so many steps.

    Returns:
        At most `most`.
    """
    x, classes = features.float(), int(labels.max()) + 1
    weight, bias = torch.zeros(classes, x.shape[1]), torch.zeros(classes)
    speed_w, speed_b = torch.zeros_like(weight), torch.zeros_like(bias)
    stream = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(x), generator=stream)
    for step in range(most):
        chosen = rows[(torch.arange(min(BATCH, len(x))) + step * BATCH) % len(x)]
        error = F.softmax(x[chosen] @ weight.T + bias, 1) - F.one_hot(labels[chosen], classes)
        speed_w = momentum * speed_w + error.T @ x[chosen] / len(chosen)
        speed_b = momentum * speed_b + error.mean(0)
        weight, bias = weight - lr * speed_w, bias - lr * speed_b
        if float(F.cross_entropy(x @ weight.T + bias, labels)) <= LEARNT * math.log(classes):
            return step + 1
    return most
