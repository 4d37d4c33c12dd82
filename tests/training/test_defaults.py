"""What a run chooses by itself: its length, its precision, Polyak's rate."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rekindle.training import polyak
from rekindle.training.defaults import LEAST_STEPS, MOST_IMAGES, automatic_epochs, released_epochs
from rekindle.training.polyak import loss_and_square, polyak_lr


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
    """A quarter of 0.6931 / (slope / 2)^2, to two digits, between the bounds."""
    batch = torch.ones(4), torch.zeros(4, dtype=torch.int64)
    found = [loss_and_square(Slope(slope), ["weight"], *batch, nn.functional.cross_entropy, nullcontext)] * 3
    assert found[0] == pytest.approx((0.693147, (slope / 2) ** 2))
    wanted = min(polyak.MOST, max(polyak.LEAST, 0.25 * 0.693147 / (slope / 2) ** 2))
    assert polyak_lr(found) == pytest.approx(wanted, rel=0.05)
    wanted = min(polyak.NORMALISED_MOST, max(polyak.LEAST, 0.75 * 0.693147 / (slope / 2) ** 2))
    assert polyak_lr(found, normalised=True) == pytest.approx(wanted, rel=0.05)


def test_it_leaves_no_gradients_and_counts_no_frozen_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    batch = torch.randn(8, 3), torch.arange(8) % 2
    both, one = (
        loss_and_square(model, names, *batch, nn.functional.cross_entropy, nullcontext)[1]
        for names in (["0.weight", "1.weight"], ["0.weight"])
    )
    model[1].requires_grad_(False)
    alone = loss_and_square(model, ["0.weight", "1.weight"], *batch, nn.functional.cross_entropy, nullcontext)[1]
    assert both > one == pytest.approx(alone) and all(parameter.grad is None for parameter in model.parameters())
    assert loss_and_square(model, ["1.weight"], *batch, nn.functional.cross_entropy, nullcontext)[1] == 0.0


def test_without_a_gradient_the_rate_is_the_least() -> None:
    assert polyak_lr([]) == polyak_lr([(1.0, 0.0)]) == polyak.LEAST
