"""The learning-rate trials on a problem whose stable rates are known: a quadratic of curvature 1 diverges above a rate of 2."""

import pytest
import torch
from torch import Tensor, nn

from rekindle.probe import find_lr


class Scaled(nn.Module):
    """pred = scale * w, so that the loss's curvature in w is scale squared."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0]))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.w * x


@pytest.mark.parametrize(("scale", "found"), [(1.0, 0.01), (15.0, 0.001), (0.01, 0.001)])
def test_cap_unless_it_diverges_or_nothing_learns(scale: float, found: float) -> None:
    model = Scaled(scale)

    def make(trial: nn.Module, rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(trial.parameters(), lr=rate)

    state = torch.get_rng_state()
    rate = find_lr(model, make, lambda logits, y: 0.5 * (logits - y).square().mean(), lambda step: (torch.ones(1), torch.zeros(1)), 0.01)
    assert rate == pytest.approx(found)
    assert model.w.item() == 1.0
    assert torch.equal(state, torch.get_rng_state())
