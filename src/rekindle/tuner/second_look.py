"""The loss of a step's micro-batches once more, at other weights: what methods that perturb weights need.

The second pass draws the same random numbers as the first (masks of dropout, say), leaves BatchNorm's running statistics and the generators as
the first pass left them, and weighs each micro-batch as the loop did: by the factor that came down to its loss in the first backward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rekindle.rng import random_state, set_random_state


@dataclass
class Look:
    """A micro-batch as `Tuner.loss` was given it.

    Attributes:
        again: Computes its loss anew.
        random: State of the generators before its first forward pass.
        factor: What the loop multiplied the loss by before ``backward``; None until that ran.
    """

    again: Callable[[], Tensor]
    random: dict[str, Tensor]
    factor: Tensor | None = None


@dataclass
class SecondLook:
    """The micro-batches of the present step."""

    looks: list[Look] = field(default_factory=list)

    def note(self, loss: Tensor, look: Look) -> None:
        """Remember a micro-batch, and by what its loss is multiplied on the way to ``backward``."""

        def keep(factor: Tensor) -> None:
            look.factor = factor.detach()

        loss.register_hook(keep)
        self.looks.append(look)

    def take(self, model: nn.Module) -> None:
        """Compute the gradients of all of them at the present weights."""
        looks, self.looks = self.looks, []
        with torch.enable_grad(), kept_statistics(model):
            for look in looks:
                if look.factor is not None:
                    set_random_state(look.random)
                    (look.again() * look.factor).backward()


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Put back a network's buffers, such as BatchNorm's running statistics, and the generators, as they were before.

    Yields:
        Nothing.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    random = random_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        set_random_state(random)
