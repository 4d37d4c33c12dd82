"""What a run chooses by itself: its length, its precision, Polyak's rate."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rekindle.training import polyak
from rekindle.training.defaults import LEAST_STEPS, MOST_IMAGES, automatic_epochs, released_epochs
from rekindle.training.polyak import polyak_lr


@given(st.integers(2, 200_000), st.integers(2, 512))
def test_a_run_is_long_enough_and_no_longer_than_the_papers(images: int, batch_size: int) -> None:
    epochs = automatic_epochs(images, batch_size)
    steps = -(-images // batch_size)
    assert epochs >= 10 and (epochs == 10 or epochs * images <= MOST_IMAGES)
    assert epochs * steps >= LEAST_STEPS or (epochs + 1) * images > MOST_IMAGES
    assert (epochs - 1) * steps < LEAST_STEPS or epochs <= 40
    if images >= 1200:
        assert epochs == released_epochs(images)


@pytest.mark.parametrize(("images", "epochs"), [(60, 150), (100, 75), (300, 40), (1200, 40), (3000, 16), (100_000, 10)])
def test_epochs_of_a_batch_of_32(images: int, epochs: int) -> None:
    assert automatic_epochs(images, 32) == epochs


class Slope(nn.Module):
    """Logit a * w for the first of two classes; at w = 0 the loss is ln 2 and its gradient -a / 2."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.slope * self.weight * x, torch.zeros_like(x)], 1)


@pytest.mark.parametrize("slope", [10.0, 20.0, 1.0, 1000.0])
def test_polyaks_step(slope: float) -> None:
    """Half of 0.6931 / (slope / 2)^2, to two digits, between the bounds."""
    batches = [(torch.ones(4), torch.zeros(4, dtype=torch.int64))] * 3
    found = polyak_lr(Slope(slope), ["weight"], batches, nn.functional.cross_entropy, nullcontext)
    wanted = min(polyak.MOST, max(polyak.LEAST, 0.5 * 0.693147 / (slope / 2) ** 2))
    assert found == pytest.approx(wanted, rel=0.05)


def test_it_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    polyak_lr(model, ["0.weight"], [(torch.randn(8, 3), torch.arange(8) % 2)], nn.functional.cross_entropy, nullcontext)
    assert not model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
