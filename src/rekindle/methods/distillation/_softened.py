"""Distances between two sets of logits after a softmax at a temperature.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531), section 2.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from rekindle.errors import number_of
from rekindle.method import Batch, require
from rekindle.methods._math import wide

Loss = Literal["kl", "ce"]


def softened_loss(logits: Tensor, targets: Tensor, temperature: float, loss: Loss = "kl", scale_t2: bool = False) -> Tensor:
    """KL(p_t || p_s) or the cross entropy -sum p_t log p_s, with p = softmax(z / T), averaged over the batch.

    The two differ by the entropy of p_t, which has no gradient.

    Args:
        logits: (B, C) of the network in training.
        targets: (B, C) logits of the teacher.
        temperature: T, above 0.
        loss: "kl" or "ce".
        scale_t2: Multiply by T^2, which keeps the size of the gradient when T changes.
    """
    ours = F.log_softmax(wide(logits) / temperature, 1)
    theirs = F.log_softmax(wide(targets) / temperature, 1)
    terms = theirs.exp() * (theirs - ours) if loss == "kl" else -theirs.exp() * ours
    return terms.sum(1).mean() * (temperature**2 if scale_t2 else 1.0)


def source_logits(batch: Batch, layer: str, owner: str) -> tuple[Tensor, Tensor]:
    """(B, C_s) logits of the kept source classifier and of the frozen source, on the same inputs.

    Raises:
        ValueError: If they differ in width.
    """
    assert batch.source_outputs is not None
    ours, theirs = batch.activations[layer].flatten(1), batch.source_outputs.flatten(1)
    same = ours.shape == theirs.shape
    require(same, f"{owner}: the kept source classifier gives {number_of(ours.shape[1], 'logit')}, the source itself {theirs.shape[1]}.")
    return ours, theirs
