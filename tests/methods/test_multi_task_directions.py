"""PCGrad, MGDA, GradVac and CAGrad: oracles, and what each guarantees at any scale."""

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from rekindle import Clock, Direction
from rekindle.methods import MGDA, CAGrad, GradVac, PCGrad
from rekindle.registry import parse
from rekindle.testing.network import Loop
from rekindle.tuner.combine import ConflictStats, combine_gradients_
from tests.methods.test_directions import directed

EPS = torch.finfo(torch.float64).eps
WHOLE = [PCGrad(), MGDA(), GradVac(granularity="global"), CAGrad(), CAGrad(c=0.9)]

numbers = st.floats(0.001, 1) | st.floats(-1, -0.001) | st.just(0.0)
scales = st.floats(-15, 15).map(lambda exponent: 10.0**exponent)
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8)


def vectors(found: list[tuple[float, float]], scale_g: float, scale_h: float) -> tuple[Tensor, Tensor]:
    g = torch.tensor([scale_g * a for a, _ in found], dtype=torch.float64)
    h = torch.tensor([scale_h * b for _, b in found], dtype=torch.float64)
    assume(float(g.norm()) > 0 and float(h.norm()) > 0)
    return g, h


def step_of(direction: Direction, g: Tensor, h: Tensor) -> Tensor:
    step = torch.tensor(directed(direction, [g.tolist()], [h.tolist()])[0], dtype=torch.float64)
    assert torch.isfinite(step).all()
    return step


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def test_oracles_on_two_axes() -> None:
    # g = (1, 0), h = (-1, 1): <g,h> = -1, <h,h> = 2.
    assert directed(PCGrad(), [[1, 0]], [[-1, 1]]) == [[2 - 1.5, 1.5]]
    assert directed(PCGrad(), [[1, 0]], [[1, 1]]) == [[2, 1]]
    assert directed(MGDA(), [[1, 0]], [[-1, 1]]) == [pytest.approx([0.2, 0.4])]
    assert directed(MGDA(), [[1, 0]], [[0, 1]]) == [pytest.approx([0.5, 0.5])]
    assert directed(MGDA(), [[1, 0]], [[2, 1]]) == [[1, 0]], "the end of the segment that is nearest to 0"
    assert directed(MGDA(), [[3, 1]], [[1, 0]]) == [[1, 0]]
    assert directed(GradVac(), [[1, 0]], [[-1, 1]]) == [pytest.approx([0.5, 1.5])], "its target is 0 at first: PCGrad"
    # Equal lengths: w = 1/2, so that v points along s = g + h, and the step is (1 + c) s.
    assert directed(CAGrad(c=0.5), [[1, 0]], [[0, 1]]) == [pytest.approx([1.5, 1.5])]
    assert directed(CAGrad(c=0.0), [[1, 0]], [[-1, 1]]) == [[0, 1]]


@given(pairs, scales, scales)
def test_pcgrad_hurts_neither(found: list[tuple[float, float]], scale_g: float, scale_h: float) -> None:
    g, h = vectors(found, scale_g, scale_h)
    step = step_of(PCGrad(), g, h)
    cosine = float(unit(g) @ unit(h))
    slack = 100 * EPS * (float(g.norm()) + float(h.norm()))
    assert float(step @ unit(g)) >= -slack and float(step @ unit(h)) >= -slack
    if cosine >= 0:
        assert torch.equal(step, g + h)
    else:  # What each keeps is what is orthogonal to the other.
        assert float(step @ unit(g)) == pytest.approx(float(g.norm()) * (1 - cosine**2), abs=slack)
        assert float(step @ unit(h)) == pytest.approx(float(h.norm()) * (1 - cosine**2), abs=slack)


@given(pairs, scales, scales)
def test_mgda_is_the_shortest_and_serves_both(found: list[tuple[float, float]], scale_g: float, scale_h: float) -> None:
    g, h = vectors(found, scale_g, scale_h)
    step = step_of(MGDA(), g, h)
    longest = max(float(g.norm()), float(h.norm()))
    slack = 1000 * EPS * longest
    for weight in (0.0, 1e-3, 0.2, 0.5, 0.8, 0.999, 1.0):
        assert float(step.norm()) <= float((weight * g + (1 - weight) * h).norm()) + slack
    # <step, g> >= ||step||^2, divided by lengths so that neither side leaves what a float holds.
    assert float(unit(g) @ step) * float(g.norm()) >= float(step.norm()) ** 2 - slack * longest
    assert float(unit(h) @ step) * float(h.norm()) >= float(step.norm()) ** 2 - slack * longest


@given(pairs, scales, scales, st.floats(-0.9, 0.99))
def test_gradvac_raises_each_cosine_to_the_target(found: list[tuple[float, float]], scale_g: float, scale_h: float, target: float) -> None:
    g, h = vectors(found, scale_g, scale_h)
    direction = GradVac(granularity="global")
    direction.load_state_dict({"targets": {"layer0.weight": target}})
    parameters = {"layer0.weight": torch.nn.Parameter(torch.zeros_like(g))}
    parameters["layer0.weight"].grad = g.clone()
    with torch.no_grad():
        combine_gradients_(parameters, {}, {"layer0.weight": h}, direction, Clock(0, 40), ConflictStats())
    step = parameters["layer0.weight"].grad
    cosine = float(unit(g) @ unit(h))
    assert direction.state_dict()["targets"]["layer0.weight"] == pytest.approx(0.99 * target + 0.01 * cosine, abs=1e-12)
    if cosine >= target:
        assert torch.allclose(step, g + h, rtol=1e-12, atol=0)
        return
    k = (target * math.sqrt(1 - min(1.0, cosine**2)) - cosine * math.sqrt(1 - target**2)) / math.sqrt(1 - target**2)
    towards_h, towards_g = unit(g) + k * unit(h), unit(h) + k * unit(g)
    whole = float(g.norm()) + float(h.norm())
    assert torch.allclose(step, towards_h * g.norm() + towards_g * h.norm(), rtol=0, atol=1e-6 * whole * (1 + k))
    if float(towards_h.norm()) > 1e-6:
        assert float(unit(towards_h) @ unit(h)) == pytest.approx(target, abs=1e-6)


@given(pairs, scales, scales, st.sampled_from([0.1, 0.5, 0.9]))
def test_cagrad_serves_the_worse_served_best_within_its_ball(
    found: list[tuple[float, float]], scale_g: float, scale_h: float, c: float
) -> None:
    g, h = vectors(found, scale_g, scale_h)
    total = g + h
    step = step_of(CAGrad(c=c), g, h)
    longest = max(float(g.norm()), float(h.norm()))
    assert float((step - total).norm()) <= c * float(total.norm()) * (1 + 1e-9) + 1e-9 * longest
    assume(float(total.norm()) > 1e-6 * longest)

    def least(vector: Tensor) -> float:
        return min(float(vector @ (g / longest)), float(vector @ (h / longest)))

    slack = 1e-7 * float(total.norm()) + 1e-9 * longest
    assert least(step) >= least(total) - slack
    for weight in torch.linspace(0, 1, 51).tolist():
        v = weight * g + (1 - weight) * h
        if float(v.norm()) > 0:
            assert least(step) >= least(total + c * total.norm() * unit(v)) - slack


def test_cagrad_finds_the_w_that_its_dual_asks_for() -> None:
    stream = torch.Generator().manual_seed(0)
    for _ in range(200):
        g, h = torch.randn(2, 3, generator=stream, dtype=torch.float64)
        h = h * float(10 ** (4 * torch.rand((), generator=stream) - 2))
        total, grid = g + h, torch.linspace(0, 1, 20001, dtype=torch.float64)
        v = grid[:, None] * g + (1 - grid[:, None]) * h
        dual = v @ total + 0.5 * total.norm() * v.norm(dim=1)
        best = v[dual.argmin()]
        assert torch.allclose(step_of(CAGrad(), g, h), total + 0.5 * total.norm() * unit(best), atol=2e-3 * float(total.norm() + g.norm()))


@pytest.mark.parametrize("direction", WHOLE, ids=repr)
def test_where_one_of_them_is_zero_the_other_is_the_step(direction: Direction) -> None:
    assert directed(direction, [[0.0, 0.0]], [[1.0, -2.0]]) == [[1.0, -2.0]]
    assert directed(direction, [[1.0, -2.0]], [[0.0, 0.0]]) == [[1.0, -2.0]]
    assert directed(direction, [[0.0, 0.0]], [[0.0, 0.0]]) == [[0.0, 0.0]]


@pytest.mark.parametrize("direction", WHOLE, ids=repr)
@pytest.mark.parametrize("h", [[-1e-200, 1e-200], [1e-200, 0.0], [-1e150, 1e150], [-1.0, 0.0], [1.0, 0.0]])
def test_extremes_are_finite(direction: Direction, h: list[float]) -> None:
    [step] = directed(direction, [[1.0, 0.0]], [h])
    assert all(math.isfinite(value) for value in step)


@pytest.mark.parametrize(
    ("kind", "bad"), [(CAGrad, {"c": 1.0}), (CAGrad, {"c": -0.1}), (GradVac, {"beta": 1.0}), (PCGrad, {"granularity": "row"})]
)
def test_bad_options(kind: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{kind.name}: {next(iter(bad))} must .*found"):
        kind(**bad)


def test_gradvac_remembers_through_a_checkpoint_and_not_from_run_to_run() -> None:
    direction = GradVac(beta=0.5)
    whole, cut = (Loop(parse("l2_sp(alpha=0.1)"), direction=direction, epochs=2) for _ in range(2))
    assert direction.state_dict() == {"targets": {}}
    whole.run()
    targets = whole.tuner.direction.state_dict()["targets"]
    assert len(targets) > 1 and any(target != 0 for target in targets.values())
    assert direction.state_dict() == {"targets": {}}, "the object that was given stays as it was"
    cut.run(stop=(1, 0))
    resumed = Loop(parse("l2_sp(alpha=0.1)"), direction=direction, epochs=2)
    assert resumed.tuner.direction.state_dict() != cut.tuner.direction.state_dict()
    resumed.tuner.load_state_dict(cut.tuner.state_dict())
    assert resumed.tuner.direction.state_dict() == cut.tuner.direction.state_dict()
