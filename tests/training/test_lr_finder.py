"""The learning-rate trials on a problem whose stable rates are known: a quadratic of curvature 1 diverges above a rate of 2."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rekindle import L2, Batch, Method, Source, Tuner
from rekindle.training.lr_finder import STEPS, Trial, find_lr, images_per_second


class Scaled(nn.Module):
    """pred = scale * w, so that the loss's curvature in w is scale squared."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.part = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.part.weight)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.part(x)


class Steep(Method):
    """A penalty on outputs that alone makes rates above 0.0008 diverge."""

    def penalty(self, batch: Batch) -> Tensor:
        return 100.0**2 / 8 * batch.outputs.square().mean()


def square(outputs: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (outputs - y).square().mean()


def batch(step: int) -> tuple[Tensor, Tensor]:
    return torch.ones(2, 1), torch.zeros(2, 1)


def autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16)


def trials(model: nn.Module, methods: list[Method], cast: Callable[[], Any] = nullcontext) -> Callable[[float], Trial]:
    source = Source(model)

    def start(rate: float) -> Trial:
        own = copy.deepcopy(model)
        tuner = Tuner(own, copy.deepcopy(methods), source=source, head="part", epochs=1, steps_per_epoch=STEPS)
        return Trial(own, tuner, torch.optim.SGD(tuner.param_groups(rate)), square, autocast=cast)

    return start


@pytest.mark.parametrize(
    ("scale", "methods", "found"),
    [
        (1.0, [], 0.01), (15.0, [], 0.001), (0.01, [], 0.001), (40.0, [], 0.0001), (400.0, [], 0.0001),
        (1.0, [Steep()], 0.0001),  # The task alone would take 0.01.
        (3.0, [L2(alpha=0.1)], 0.01),
    ],
)  # fmt: skip
@pytest.mark.parametrize("cast", [nullcontext, autocast])
def test_cap_unless_it_diverges_or_nothing_learns(scale: float, methods: list[Any], found: float, cast: Any) -> None:
    """Also in bfloat16, where weights that were cast for one forward pass must not serve the next."""
    model = Scaled(scale)
    state = torch.get_rng_state()
    assert find_lr(trials(model, methods, cast), batch, 0.01) == pytest.approx(found)
    assert model.part.weight.item() == 1.0
    assert torch.equal(state, torch.get_rng_state())


def test_speed_counts_images() -> None:
    assert images_per_second(trials(Scaled(1.0), []), batch) > 0
