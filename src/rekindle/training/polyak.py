"""A learning rate for the backbone from a few gradients: Polyak's step, loss / ||g||^2.

Polyak, Introduction to Optimization, 1987, section 5.3; for stochastic gradients Loizou, Vaswani, Laradji, Lacoste-Julien, AISTATS 2021
(arXiv 2002.10542). It is the step after which a convex loss whose least value is 0 could be there. It tells networks apart that bear a large
rate from those that diverge at it, if it is measured on pictures that the head was not fitted to: on those that it was, the loss is nearly
0, the gradient shrinks as the loss does, and the quotient has no bound (docs/results/defaults).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.tuner import Criterion

# Momentum multiplies a step. Normalised by the batch, a loss does not change with the length of weights, and bears more: a larger share, up to more.
SHARE, MOST = 0.25, 6e-3
NORMALISED_SHARE, NORMALISED_MOST = 0.75, 3e-2
LEAST = 2e-3


def loss_and_square(
    model: nn.Module, backbone: Iterable[str], x: Tensor, y: Tensor, criterion: Criterion, autocast: Callable[[], AbstractContextManager[Any]]
) -> tuple[float, float]:  # fmt: skip
    """What Polyak's step is made of, on one batch.

    Args:
        model: In the mode that it is measured in, which in training mode moves its statistics.
        backbone: Names of the parameters that the rate is for; frozen ones do not count.
        x: Inputs, on the model's device.
        y: Labels.
        criterion: A loss whose least value is 0.
        autocast: Makes the context of a forward pass.

    Returns:
        The loss, and the squared norm of its gradient with respect to the backbone; 0 where all of it is frozen.
    """
    named = dict(model.named_parameters())
    weights = [named[name] for name in backbone if named[name].requires_grad]
    with autocast():
        outputs = model(x)
    loss = criterion(outputs.float(), y)
    found = torch.autograd.grad(loss, weights, allow_unused=True) if weights else ()
    return float(loss.detach()), sum(float(g.double().square().sum()) for g in found if g is not None)


def polyak_lr(measured: Sequence[tuple[float, float]], normalised: bool = False) -> float:
    """A quarter of the mean loss over the mean squared norm of the gradient, from 0.002 to 0.006; or three quarters, to 0.03.

    Args:
        measured: (loss, squared norm) of some batches.
        normalised: Whether the network normalises by statistics of its batches, which bears three quarters. At 0.03 ResNet-56 with frozen statistics
            forgot all within ten epochs.

    Returns:
        A rate of two digits; 0.002 where nothing was measured, nothing is trained, or what was measured overflows.

    Examples:
        >>> polyak_lr([(1.2, 40.0), (0.8, 60.0)])
        0.005
    """
    share, most = (NORMALISED_SHARE, NORMALISED_MOST) if normalised else (SHARE, MOST)
    losses, squares = sum(loss for loss, _ in measured), sum(square for _, square in measured)
    if not math.isfinite(losses) or not math.isfinite(squares) or squares <= 0:
        return LEAST  # A network that overflows where it starts bears no step at all; the first loss says so.
    return float(f"{min(most, max(LEAST, share * losses / squares)):.2g}")
