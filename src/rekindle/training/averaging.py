"""An exponential moving average of a network's weights, by torch's `AveragedModel`.

BatchNorm's running statistics are averaged with the weights, at the same pace: they are averages over steps already, and new ones would
cost a pass over the training pictures. Where BatchNorm is frozen they never change.

After a restart, as of RIFLE's head, all of the average begins anew, not the head's alone: a head learns on the features of its own
steps, and the backbone's weights of the time before the draw belong to another one.
"""

from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Average(AveragedModel):
    """torch's, which takes the weights as they are first, and looks at its count on the CPU alone: a GPU is not to be waited for in each step.

    Args:
        model: The network, which is copied.
        decay: Weight of the average so far, above 0 and below 1. It rises to that from 2 / 11, so that the first steps, far from where
            training leads, are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move to the weights of a network; counts, such as BatchNorm's of batches, are taken as they are."""
        steps = int(self.n_averaged)
        pairs = list(zip(chain(self.module.parameters(), self.module.buffers()), chain(model.parameters(), model.buffers()), strict=True))
        averages, weights = [a.detach() for a, _ in pairs if a.is_floating_point()], [w.detach() for _, w in pairs if w.is_floating_point()]
        pace = 1 - min(self._decay, (1 + steps) / (10 + steps)) if steps else 1.0
        torch._foreach_lerp_(averages, weights, pace)
        for average, weight in pairs:
            if not average.is_floating_point():
                average.copy_(weight)
        self.n_averaged += 1

    def begin_anew(self) -> None:
        """Let the next update take the weights as they are."""
        self.n_averaged.zero_()
