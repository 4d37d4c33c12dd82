"""Selective projection decay, in float64: the three numbers of a step by hand, with SGD and with Adam."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rekindle import Tuner
from rekindle.methods.anchors.spd import SPD, deviation_ratio
from tests.toys import toy


class Plain(nn.Module):
    """One shared parameter and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 1, bias=False, dtype=torch.float64)
        self.fc = nn.Linear(1, 1, bias=False, dtype=torch.float64)


def trained(method: SPD | None, gradients: list[list[float]], optimizer: Any, start: list[float]) -> list[Tensor]:
    """Weights of the body after each step along gradients that are given."""
    model = Plain()
    with torch.no_grad():
        model.body.weight.copy_(torch.tensor([start]))
    tuner = Tuner(model, [method] if method else [], head="fc", epochs=1, steps_per_epoch=len(gradients))
    made = optimizer(tuner.param_groups(lr=1.0))
    tuner.scheduler(made)
    for group in made.param_groups:
        group["initial_lr"] = group["lr"] = 1.0
    tuner.start_epoch(0)
    found = []
    for gradient in gradients:
        for group in made.param_groups:
            group["lr"] = 1.0  # The schedule is not what is looked at.
        model.body.weight.grad = torch.tensor([gradient], dtype=torch.float64)
        tuner.gradients_()
        made.step()
        found.append(model.body.weight.detach().clone()[0])
    return found


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, momentum=0.9)


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups)


OUT_THEN_BACK = [[-1.0, 0.0], [0.1, 0.0]]  # The second gradient leads back, but momentum leads on.


def test_momentum_that_leads_out_against_the_gradient_is_undone() -> None:
    plain = trained(None, OUT_THEN_BACK, sgd, [5.0, 5.0])
    assert [w[0].item() for w in plain] == pytest.approx([6.0, 6.8])
    held = trained(SPD(), OUT_THEN_BACK, sgd, [5.0, 5.0])
    assert [w[0].item() for w in held] == pytest.approx([6.0, 6.0], abs=1e-15)


@pytest.mark.parametrize(("strength", "end"), [(0.0, 6.8), (0.5, 6.4), (1.0, 6.0), (2.0, 5.2), (5.0, 5.0)])
def test_strength_goes_from_nothing_over_the_old_distance_to_the_start(strength: float, end: float) -> None:
    """r = 0.8 / 1.8, of a distance of 1.8; what would pass the start ends there."""
    held = trained(SPD(strength=strength), OUT_THEN_BACK, sgd, [5.0, 5.0])
    assert held[-1][0].item() == pytest.approx(end, abs=1e-14) and held[-1][1].item() == 5.0


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_whoever_follows_the_gradient_outwards_is_free(optimizer: Any) -> None:
    gradients = [[-1.0, 0.5], [-1.0, 0.5], [-0.5, 0.1]]
    for one, other in zip(trained(SPD(), gradients, optimizer, [1.0, 1.0]), trained(None, gradients, optimizer, [1.0, 1.0]), strict=True):
        assert torch.equal(one, other)


def test_a_step_inwards_is_free() -> None:
    gradients = [[-1.0, 0.0], [1.2, 0.0]]
    assert torch.equal(trained(SPD(), gradients, sgd, [1.0, 1.0])[-1], trained(None, gradients, sgd, [1.0, 1.0])[-1])


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_ten_steps_are_the_papers_algorithm(optimizer: Any) -> None:
    stream = torch.Generator().manual_seed(0)
    gradients = torch.randn(10, 2, generator=stream, dtype=torch.float64).tolist()
    start = torch.tensor([1.0, -2.0], dtype=torch.float64)
    w = nn.Parameter(start.clone())
    made, acted = optimizer([{"params": [w], "lr": 1.0}]), 0
    for gradient, found in zip(gradients, trained(SPD(strength=0.7), gradients, optimizer, start.tolist()), strict=True):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        before, condition = w.detach() - start, -float(w.grad @ (w.detach() - start))
        made.step()
        after = w.detach() - start
        ratio = max(0.0, float(after.norm() - before.norm())) / float(after.norm())
        if condition < 0:
            acted += ratio > 0
            with torch.no_grad():
                w.sub_(0.7 * ratio * after)
        assert torch.allclose(w.detach(), found, rtol=0, atol=1e-12)
    assert acted > 0


def test_an_optimiser_may_write_over_gradients() -> None:
    """Nesterov's momentum does, in the form that treats many tensors together."""

    def nesterov(groups: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, foreach=True)

    def alone(groups: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, foreach=False)

    one, other = (trained(SPD(), OUT_THEN_BACK, kind, [5.0, 5.0]) for kind in (nesterov, alone))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-14) for a, b in zip(one, other, strict=True))


def test_the_ratio_at_no_distance_is_none() -> None:
    assert float(deviation_ratio(torch.tensor(0.0), torch.tensor(0.0))) == 0.0
    assert float(deviation_ratio(torch.tensor(4.0), torch.tensor(1.0))) == 0.75
    assert float(deviation_ratio(torch.tensor(1.0), torch.tensor(4.0))) == 0.0


def test_frozen_and_new_parameters_are_left_alone() -> None:
    model = toy()
    model.body[0].weight.requires_grad_(False)
    method = SPD(strength=5.0)
    tuner = Tuner(model, [method], head="fc", epochs=1, steps_per_epoch=1)
    assert "fc.weight" not in method.state_dict()["anchors"]
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.1))
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    tuner.loss(model, torch.randn(4, 4), torch.tensor([0, 1, 2, 0]), nn.functional.cross_entropy).backward()
    tuner.gradients_()
    before = model.body[0].weight.clone()
    optimizer.step()
    assert torch.equal(model.body[0].weight, before)


def test_a_network_from_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="spd: the network shares no parameter with its source"):
        Tuner(toy(), [SPD()], head="fc", source_names={}, epochs=1, steps_per_epoch=1)
