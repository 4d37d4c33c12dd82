"""Stochastic normalisation: each channel uses either the batch's statistics or the running ones.

Kou, You, Long, Wang: Stochastic Normalization, NeurIPS 2020, section 3. p is the probability of batch statistics; the
running ones are those from before the step's own update.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.method import Method, Net, Source, require
from rekindle.spec import Share


@dataclass
class StochNorm(Method):
    """Let each channel of each BatchNorm toss between batch and running statistics in training.

    Args:
        p: Probability of batch statistics, from 0 (never) to 1 (ordinary BatchNorm).

    Raises:
        ValueError: For an argument out of range, or a network without BatchNorm that keeps running statistics.
    """

    p: Share = 0.5

    paper: ClassVar[str] = "Kou, You, Long, Wang, NeurIPS 2020"
    neutral: ClassVar[dict[str, Any] | None] = {"p": 1.0}
    splits_batches: ClassVar[bool] = False  # BatchNorm's statistics are those of each micro-batch.

    def surgery(self, net: Net, source: Source) -> None:
        """Watch every BatchNorm; their weights and buffers stay where they are."""
        if self.p == 1:
            return
        norms = [part for part in net.model.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
        require(bool(norms), f"stoch_norm: {type(net.model).__name__} has no BatchNorm with running statistics to choose from.")
        for norm in norms:
            toss = _Toss(self.p)
            norm.register_forward_pre_hook(toss)
            # First of the forward hooks: others, such as stochastic depth's, act on what the normalisation gives.
            norm.register_forward_hook(toss, prepend=True)


class _Toss:
    """Both hooks of one BatchNorm: keep the running statistics before it updates them, then mix the two outputs by channel."""

    def __init__(self, p: float) -> None:
        self.p = p
        self.kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor | None = None) -> Tensor | None:
        if not module.training:
            return None
        if output is None:
            # Without the copies, backward would read the variance after the update, which is done in place.
            self.kept = (module.running_mean.clone(), module.running_var.clone())  # type: ignore[operator]
            return None
        assert self.kept is not None
        running, self.kept = normalize(module, inputs[0], *self.kept), None
        return mix(output, running, self.p)


def normalize(module: nn.Module, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """What the BatchNorm gives with fixed statistics, with the dropout and activation that timm's variants hold.

    Returns:
        A tensor of the shape of x.
    """
    found = F.batch_norm(x, mean, var, module.weight, module.bias, False, 0.0, module.eps)  # type: ignore[arg-type]
    for name in ("drop", "act"):
        part = getattr(module, name, None)
        found = part(found) if isinstance(part, nn.Module) else found
    return found


def mix(batch: Tensor, running: Tensor, p: float) -> Tensor:
    """(B, C, ...): each channel from `batch` with probability p, else from `running`; drawn from the default generator.

    Returns:
        A tensor of the shape of both.
    """
    tossed = torch.rand(batch.shape[1], device=batch.device) < p
    return torch.where(tossed.view(-1, *(1 for _ in batch.shape[2:])), batch, running)
