"""A learning rate for the backbone from a few gradients: Polyak's step, loss / ||g||^2.

Polyak, Introduction to Optimization, 1987, section 5.3; for stochastic gradients Loizou, Vaswani, Laradji, Lacoste-Julien, AISTATS 2021
(arXiv 2002.10542). It is the step after which a convex loss whose least value is 0 could be there. Measured where training starts, at
a fitted head, it tells networks apart that bear a large rate from those that diverge at it.
"""

import copy
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.tuner import Criterion

BATCHES = 2
SHARE = 0.5  # Momentum multiplies a step; at the whole of it EfficientNet-Lite0 lost seven points that half of it keeps.
LEAST, MOST = 2e-3, 3e-2


def polyak_lr(
    model: nn.Module, backbone: Iterable[str], batches: Iterable[tuple[Tensor, Tensor]], criterion: Criterion,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> float:  # fmt: skip
    """Half the mean loss over the mean squared norm of the backbone's gradient, between `LEAST` and `MOST`; `LEAST` where they overflow.

    Args:
        model: Where training starts; it is copied, so that no statistics move.
        backbone: Names of the parameters that the rate is for.
        batches: (inputs, labels) on the model's device.
        criterion: A loss whose least value is 0.
        autocast: Makes the context of a forward pass.

    Returns:
        A rate from 0.002 to 0.03, of two digits.
    """
    twin = copy.deepcopy(model).train()
    named = dict(twin.named_parameters())
    weights = [named[name] for name in backbone if named[name].requires_grad]
    if not weights:
        return LEAST
    losses, squares = 0.0, 0.0
    for x, y in batches:
        with autocast():
            outputs = twin(x)
        loss = criterion(outputs.float(), y)
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        losses += float(loss.detach())
        squares += sum(float(g.double().square().sum()) for g in found if g is not None)
    if not math.isfinite(losses) or not math.isfinite(squares):
        return LEAST  # A network that overflows where it starts bears no step at all; the first loss says so.
    rate = SHARE * losses / squares if squares > 0 else MOST
    return float(f"{min(MOST, max(LEAST, rate)):.2g}")
