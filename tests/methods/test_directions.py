"""Directions: oracles D1 to D6 and the guarantees, in float64."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rekindle import DTNH, L2SP, Clock, Direction, GrOD, Method, PlainSum, Source, Tuner
from rekindle.methods import FeatureMaps
from rekindle.tuner.combine import ConflictStats, combine_gradients_, rounding

ALWAYS = GrOD(granularity="global")
EPS = torch.finfo(torch.float64).eps


def directed(direction: Direction, g: list[list[float]], h: list[list[float]], factor: float = 1.0, epoch: int = 0) -> list[list[float]]:
    """The step for gradients g and penalties factor * h of several tensors."""
    parameters = {f"layer{i}.weight": nn.Parameter(torch.zeros(len(x), dtype=torch.float64)) for i, x in enumerate(g)}
    for parameter, x in zip(parameters.values(), g, strict=True):
        parameter.grad = torch.tensor(x, dtype=torch.float64)
    closed = {name: factor * torch.tensor(x, dtype=torch.float64) for name, x in zip(parameters, h, strict=True)}
    with torch.no_grad():
        combine_gradients_(parameters, {}, closed, direction, Clock(epoch, 40), ConflictStats())
    return [p.grad.tolist() for p in parameters.values() if p.grad is not None]


def test_d1_projects_on_conflict() -> None:
    assert directed(DTNH(), [[1, 0]], [[-1, 1]], 0.5) == [[1, 0.5]]
    assert directed(PlainSum(), [[1, 0]], [[-1, 1]], 0.5) == [[0.5, 0.5]]


def test_d2_acute_angles() -> None:
    assert directed(DTNH(), [[1, 0]], [[1, 1]], 0.5) == [[1.5, 0.5]]
    assert directed(ALWAYS, [[1, 0]], [[1, 1]], 0.5) == [[1, 0.5]]


def test_d3_granularity() -> None:
    g, h = [[1.0], [1.0]], [[-1.0], [2.0]]
    assert directed(DTNH(), g, h, 0.5) == [[0.5], [2.0]]
    assert directed(ALWAYS, g, h, 0.5) == [[0.25], [1.75]]
    assert directed(DTNH(granularity="tensor"), g, h, 0.5) == [[1.0], [2.0]]
    assert directed(GrOD(), g, h, 0.5) == [[1.0], [1.0]]
    assert directed(DTNH(granularity="layer"), g, h, 0.5) == [[1.0], [2.0]]


def l2_sp_step(direction: Direction, w: list[float], w0: list[float], g: list[float], alpha: float) -> list[float]:
    """The gradient that a Tuner leaves after L2-SP has acted along the direction."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(w0, dtype=torch.float64))
            self.fc = nn.Linear(2, 2, dtype=torch.float64)

    model = One()
    source = Source(model)
    tuner = Tuner(
        model,
        [L2SP(alpha=alpha, beta=0.0)],
        source=source,
        head="fc",
        source_names={"w": "w"},
        direction=direction,
        epochs=1,
        steps_per_epoch=1,
    )
    tuner.scheduler(torch.optim.SGD(tuner.param_groups(0.1)))
    tuner.start_epoch(0)
    with torch.no_grad():
        model.w.copy_(torch.tensor(w))
    model.w.grad = torch.tensor(g, dtype=torch.float64)
    tuner.gradients_()
    return model.w.grad.tolist()


def test_d4_l2_sp() -> None:
    found = l2_sp_step(DTNH(), [1, 2], [0, 2], [-2, 1], 0.1)
    assert found == pytest.approx([-1.98, 1.04], abs=1e-15)
    assert found[0] * -2 + found[1] == pytest.approx(5)
    plain = l2_sp_step(PlainSum(), [1, 2], [0, 2], [-2, 1], 0.1)
    assert plain[0] * -2 + plain[1] == pytest.approx(4.8)


def test_d5_the_formula_in_the_comment_not_what_its_port_executes() -> None:
    assert l2_sp_step(GrOD(preset="code"), [2, 0], [1, 1], [0, 1], 0.1) == pytest.approx([0.1, 1.0])


def test_d6_decay() -> None:
    assert 0.1 * GrOD(preset="code").strength(Clock(10, 40)) == pytest.approx(0.0904382075009, abs=1e-13)
    [step] = directed(GrOD(preset="code"), [[0.0, 1.0]], [[1.0, 0.0]], 0.1, epoch=10)
    assert step == pytest.approx([0.0904382075009, 1.0], abs=1e-13)


numbers = st.floats(0.001, 1) | st.floats(-1, -0.001) | st.just(0.0)
scales = st.floats(-15, 15).map(lambda exponent: 10.0**exponent)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), scales, scales, st.sampled_from([DTNH(), ALWAYS]))
def test_never_hurts_at_any_scale(pairs: list[tuple[float, float]], scale_g: float, scale_h: float, direction: Direction) -> None:
    g = torch.tensor([scale_g * a for a, _ in pairs], dtype=torch.float64)
    h = torch.tensor([scale_h * b for _, b in pairs], dtype=torch.float64)
    step = torch.tensor(directed(direction, [g.tolist()], [h.tolist()])[0], dtype=torch.float64)
    assert torch.isfinite(step).all()
    slack = 100 * EPS * float(g.norm()) * float(h.norm()) + 100 * EPS * float(g @ g)
    gh = float(g @ h)
    if float(g @ g) == 0:
        assert torch.equal(step, g + h)
        return
    if isinstance(direction, DTNH):
        assert float(step @ g) >= float(g @ g) - slack
        if gh > slack:
            assert torch.allclose(step, g + h, rtol=1e-12, atol=0), "the plain sum at acute angles"
        assert float(step @ g) == pytest.approx(float(g @ g) + max(0.0, gh), abs=slack)
    else:
        assert float(step @ g) == pytest.approx(float(g @ g), abs=slack)


@pytest.mark.parametrize("direction", [DTNH(), ALWAYS])
def test_zero_gradients(direction: Direction) -> None:
    assert directed(direction, [[0.0, 0.0]], [[1.0, -2.0]]) == [[1.0, -2.0]]
    assert directed(direction, [[1.0, -2.0]], [[0.0, 0.0]]) == [[1.0, -2.0]]
    tiny = 1e-200
    assert directed(direction, [[tiny, 0.0]], [[-1.0, 1.0]]) == [[tiny - 1.0, 1.0]], "the quotient would overflow"


def test_not_finite_names_the_culprit() -> None:
    with pytest.raises(ValueError, match=r"the gradient of the regulariser is not finite in layer1.weight at epoch 1, step 1"):
        directed(DTNH(), [[1.0], [1.0]], [[1.0], [math.nan]])
    with pytest.raises(ValueError, match=r"the gradient of the loss is not finite in layer0.weight"):
        directed(DTNH(), [[math.inf], [1.0]], [[1.0], [1.0]])


@pytest.mark.parametrize("bad", [{"granularity": "row"}, {"rho": 0.0}, {"rho": 1.5}, {"rho": math.nan}, {"preset": "paper"}])
def test_bad_options(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"grod: {next(iter(bad))} must .*found {next(iter(bad.values()))!r}"):
        GrOD(**bad)  # type: ignore[arg-type]


class Pull(Method):
    """A penalty on activations whose gradient is easy: strength/2 * ||outputs||^2 / B."""

    strength = 0.3

    def penalty(self, batch: object) -> torch.Tensor:
        return 0.5 * self.strength * batch.outputs.square().sum() / len(batch.outputs)  # type: ignore[attr-defined, no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5, dtype=torch.float64)
        self.fc = nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).tanh())  # type: ignore[no-any-return]


def gradients(direction: Direction, accumulate: int, scaler: float = 1.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = Net()
    tuner = Tuner(model, [Pull()], head="fc", epochs=1, steps_per_epoch=1, direction=direction)
    tuner.scheduler(torch.optim.SGD(tuner.param_groups(0.1)))
    tuner.start_epoch(0)
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    for a, b in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
        (scaler * tuner.loss(model, a, b, nn.functional.cross_entropy) / accumulate).backward()
    for p in model.parameters():
        p.grad /= scaler
    tuner.gradients_(scaler)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_hand() -> dict[str, torch.Tensor]:
    """Two backward passes on the whole batch, combined by the formula."""
    torch.manual_seed(0)
    model = Net()
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8) % 3
    shared = list(model.body.parameters())
    task = nn.functional.cross_entropy(model(x), y)
    penalty = Pull().penalty(type("B", (), {"outputs": model(x)}))
    g, h = (torch.autograd.grad(loss, shared, retain_graph=True) for loss in (task, penalty))
    new = torch.autograd.grad(task + penalty, list(model.fc.parameters()))
    gh, gg = (sum(float((a * b).sum()) for a, b in zip(g, other, strict=True)) for other in (h, g))
    step = [a + b - (gh / gg) * a for a, b in zip(g, h, strict=True)]
    return dict(zip(["body.weight", "body.bias", "fc.weight", "fc.bias"], [*step, *new], strict=True))


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("scaler", [1.0, 1024.0])
def test_activation_penalty_by_a_second_backward(accumulate: int, scaler: float) -> None:
    found, wanted = gradients(ALWAYS, accumulate, scaler), by_hand()
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=0, atol=1e-14), name
    plain = gradients(PlainSum(), accumulate, scaler)
    assert not torch.allclose(plain["body.weight"], wanted["body.weight"], rtol=0, atol=1e-6)
    assert torch.allclose(plain["fc.weight"], wanted["fc.weight"], rtol=0, atol=1e-14), "new parameters get the plain sum"


def test_angles_are_reported_and_start_anew_each_epoch() -> None:
    from rekindle.registry import parse
    from rekindle.testing.network import Loop

    loop = Loop(parse("l2_sp(alpha=0.1)"), direction=DTNH(), epochs=2)
    loop.run(stop=(1, 2))
    found = loop.tuner.conflict_stats()
    assert found is not None and len(found["cosines"]) == 2 and all(-1 <= c <= 1 for c in found["cosines"])
    assert Loop([]).tuner.conflict_stats() is None


NULL = ("0.bias", "3.bias")  # Of convolutions before BatchNorm: the true gradient is 0.


def convolutions(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        blocks = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]
        return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def directed_step(
    direction: Direction, method: Method, dtype: torch.dtype, autocast: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """g of the loss alone, the plain sum g + h, and what the direction makes of both, by name."""
    found = []
    for which, methods in ((PlainSum(), []), (PlainSum(), [method]), (direction, [method])):
        model = convolutions().to(dtype)
        tuner = Tuner(model, copy.deepcopy(methods), head="8", epochs=1, steps_per_epoch=1, direction=which)
        tuner.scheduler(torch.optim.SGD(tuner.param_groups(0.1)))
        tuner.start_epoch(0)
        stream = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=stream, dtype=torch.float64).to(dtype))
        x, y = torch.randn(32, 3, 10, 10, generator=stream, dtype=torch.float64).to(dtype), torch.arange(32) % 3
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = tuner.loss(model, x, y, nn.functional.cross_entropy)
        loss.backward()
        tuner.gradients_()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return found[0], found[1], found[2]


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float64, False), (torch.float32, False), (torch.bfloat16, False), (torch.float32, True)]
)
@pytest.mark.parametrize("direction", [GrOD(), DTNH(granularity="tensor")])
def test_along_rounding_nothing_is_projected(direction: Direction, dtype: torch.dtype, autocast: bool) -> None:
    g, plain, found = directed_step(direction, L2SP(alpha=0.01), dtype, autocast)
    eps = torch.finfo(dtype).eps  # bfloat16 rounds g + h in another order.
    projected = {name for name in g if not torch.allclose(found[name], plain[name], rtol=2 * eps, atol=0)}
    assert not projected & {*NULL, "8.weight", "8.bias"}
    assert all(float((plain[name] - g[name]).norm()) > 1e-4 for name in NULL)
    if dtype != torch.bfloat16:
        assert projected if isinstance(direction, DTNH) else projected == {name for name in g if not name.startswith("8.")} - set(NULL)


@pytest.mark.parametrize("method", [L2SP(alpha=0.3), FeatureMaps(strength=2.0)])
@pytest.mark.parametrize("direction", [GrOD(), DTNH(granularity="tensor"), GrOD(granularity="layer"), DTNH()])
def test_ordinary_tensors_follow_the_formula(direction: Direction, method: Method) -> None:
    g, plain, found = directed_step(direction, method, torch.float64)
    shared = [name for name in g if not name.startswith("8.")]
    blocks: dict[str, list[str]] = {}
    for name in shared:
        key = {"global": "", "layer": name.rpartition(".")[0], "tensor": name}[direction.granularity]
        blocks.setdefault(key, []).append(name)
    for names in blocks.values():
        gg = sum(float((g[n] * g[n]).sum()) for n in names)
        gh = sum(float((g[n] * (plain[n] - g[n])).sum()) for n in names)
        take = 0.0 if names[0] in NULL and len(names) == 1 or (isinstance(direction, DTNH) and gh >= 0) else gh / gg
        for name in names:
            torch.testing.assert_close(found[name], plain[name] - take * g[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_what_counts_as_rounding_is_relative_to_the_module(scale: float) -> None:
    bound = EPS**0.5
    factors = {"a.weight": 1.0, "a.bias": 0.5 * bound, "b.weight": 0.5 * bound, "b.bias": bound, "c.weight": 0.0}
    sizes, fine = {name: (scale * factor, scale * factor) for name, factor in factors.items()}, dict.fromkeys(factors, EPS)
    assert rounding(sizes, fine) == {"a.bias", "c.weight"}
    sizes["b.weight"] = (sizes["b.weight"][0], 2 * scale)  # Nearly all of it a penalty's.
    assert rounding(sizes, fine) == {"a.bias", "b.weight", "b.bias", "c.weight"}
    assert rounding(sizes, dict.fromkeys(factors, torch.finfo(torch.float32).eps)) >= {"a.bias", "c.weight"}
