"""What every registered method and direction passes without a line of its own."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from rekindle import Direction, Method
from rekindle.method import Clock
from rekindle.registry import describe, directions, methods, parse, parse_direction, unparse
from tests.contract.network import Loop, batch, hybrid, passes

NAMES = list(methods())
NEUTRAL = [name for name in NAMES if methods()[name].neutral is not None]
CLOCK = Clock(0, 8)
# One of each kind of hook, as many as go together in one network; each by itself takes a minute together.
COMPILED = ["l2+rifle+dropconnect", "delta+stochastic_depth", "source_classifier", "lp_ft"]


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Masks inside a network come from the global generator."""
    torch.manual_seed(0)


def make(name: str) -> Method:
    return methods()[name](**methods()[name].example)


def draws_in_forward(name: str) -> bool:
    """Whether two forward passes of one batch differ in training: masks differ between micro-batches by design."""
    loop = Loop([make(name)])
    loop.tuner.prepare(passes)
    loop.model.train()
    loop.tuner.start_epoch(0)
    with torch.no_grad():  # Noise may grow with the distance from the start.
        for p in loop.model.parameters():
            p.add_(0.1)
    first, second = (loop.model(batch(0)[0]) for _ in range(2))
    return not torch.equal(first, second)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_change_nothing(name: str) -> None:
    plain = Loop([]).run()
    neutral = Loop([methods()[name](**methods()[name].neutral)])  # type: ignore[arg-type]
    torch.manual_seed(0)
    trained = neutral.run()
    assert plain.keys() == trained.keys()
    assert all(torch.equal(plain[key], trained[key]) for key in plain)


@pytest.mark.parametrize("name", NAMES)
def test_repr_and_recipe_parse_back(name: str) -> None:
    method = make(name)
    assert eval(repr(method), {type(method).__name__: type(method)}) == method
    assert parse(unparse([method])) == [method]
    assert method.paper and (type(method).__doc__ or "").strip()


@pytest.mark.parametrize("name", list(directions()))
def test_directions_parse_back(name: str) -> None:
    direction = directions()[name]()
    assert eval(repr(direction), {type(direction).__name__: type(direction)}) == direction
    assert parse_direction(describe(direction)) == direction
    assert direction.paper


@pytest.mark.parametrize("name", NAMES)
def test_the_global_generator_is_untouched_outside_forward(name: str) -> None:
    before = torch.get_rng_state()
    loop = Loop([make(name)], epochs=2)

    def guarded(x: torch.Tensor) -> torch.Tensor:
        with torch.random.fork_rng():
            return loop.model(x)  # type: ignore[no-any-return]

    loop.forward = guarded
    loop.run()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_surgery_keeps_keys(name: str) -> None:
    """Old keys stay, apart from the new classifier's own, which a method for heads may put deeper."""
    before = hybrid().state_dict()
    after = Loop([make(name)]).model.state_dict()
    lost = [key for key in before if key not in after and not key.startswith("fc.")]
    assert not lost
    assert all(after[key].shape == value.shape for key, value in before.items() if key in after)


@pytest.mark.parametrize("name", NAMES)
def test_closed_form_is_autograds(name: str) -> None:
    method = make(name)
    loop = Loop([method], hybrid().double())
    loop.tuner.prepare(lambda: [(x.double(), y) for x, y in passes()])
    model = loop.model
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.linspace(-1, 1.1, p.numel(), dtype=p.dtype).view_as(p))
    closed = {id(p): g for p, g in method.gradient(CLOCK)}
    value = method.value(CLOCK)
    if value is None or not value.requires_grad:
        assert not closed
        return
    value.backward()
    for p in model.parameters():
        assert torch.allclose(closed.get(id(p), torch.zeros_like(p)), torch.zeros_like(p) if p.grad is None else p.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_resume_is_exact(name: str) -> None:
    """At every epoch boundary and in mid-epoch; into a network that was loaded with other weights."""
    torch.manual_seed(1)
    loop = Loop([make(name)], keep_at=[(1, 0), (2, 0), (2, 1), (3, 0), (3, 2)])
    whole = loop.run()
    assert len(loop.kept) == 5
    for at, saved in loop.kept.items():
        torch.manual_seed(77)
        other = Loop([make(name)], hybrid(seed=9))
        other.load(saved)
        resumed = other.run()
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items()), at


@pytest.mark.parametrize("name", NAMES)
def test_accumulation_equals_none(name: str) -> None:
    """Without BatchNorm, whose statistics a split batch changes."""
    if not methods()[name].splits_batches:
        pytest.skip(f"{name} acts on statistics of a whole batch")
    if draws_in_forward(name):
        pytest.skip(f"{name} draws masks in each forward pass")
    one, two = (Loop([make(name)], hybrid(norm=False).double(), epochs=2, accumulate=number) for number in (1, 2))
    for loop in (one, two):
        loop.tuner.prepare(lambda: [(x.double(), y) for x, y in passes()])
        _double_batches(loop)
    assert max(float((a - b).abs().max()) for a, b in zip(one.run().values(), two.run().values(), strict=True)) < 1e-10


def _double_batches(loop: Loop) -> None:
    """Let the loop's network take float64 images."""
    loop.model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
    loop.tuner.source.model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))


@pytest.mark.parametrize("names", [*COMPILED, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in COMPILED)])
def test_bf16_and_compile(names: str) -> None:
    loop = Loop([make(name) for name in names.split("+")], epochs=2, steps=1)
    loop.tuner.prepare(passes)
    torch._dynamo.reset()  # Code that was compiled for another method's hooks is not for these.
    compiled = torch.compile(loop.model, backend="aot_eager")
    loop.model.train()
    for epoch in range(2):
        loop.tuner.start_epoch(epoch)
        x, y, indices = batch(epoch)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loop.tuner.loss(compiled, x, y, nn.functional.cross_entropy, indices)
        loss.backward()
        loop.tuner.gradients_()
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.scheduler.step()
    assert all(torch.isfinite(p).all() for p in loop.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_deep_copy_trains_by_itself(name: str) -> None:
    """Short trials train a copy of the network; nothing of that may reach the network itself."""
    loop = Loop([make(name)])
    before = loop.state()
    trial = copy.deepcopy(loop.model).train()
    optimizer = torch.optim.SGD([p for p in trial.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(trial(batch(0)[0]), batch(0)[1]).backward()
    optimizer.step()
    assert all(torch.equal(value, loop.model.state_dict()[key]) for key, value in before.items())
    assert all(p.grad is None for p in loop.model.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", [kind() for name, kind in directions().items() if name != "plain_sum"], ids=repr)
def test_every_method_goes_with_a_direction(name: str, direction: Direction) -> None:
    if make(name).incompatible_with_direction():
        pytest.skip(f"{name} acts past a direction; test_with_direction.py looks at its refusal")
    loop = Loop([make(name)], epochs=2, direction=direction)
    assert all(torch.isfinite(value).all() for value in loop.run().values())
    found = loop.tuner.conflict_stats()
    assert found is not None and len(found["cosines"]) == 3 and 0 <= found["conflicts"] <= 1


@pytest.mark.parametrize("name", NAMES)
def test_bad_options_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no option 'nonsense'"):
        parse(f"{name}(nonsense=1)")
    for field in dataclasses.fields(make(name)):  # type: ignore[arg-type]
        bad = float("nan") if not isinstance(field.default, str) else -7
        with pytest.raises(ValueError, match=rf"{field.name} must"):
            methods()[name](**{field.name: bad})


def test_mixed_recipes_parse_back() -> None:
    recipe = "l2_sp(alpha=0.1)+rifle(periods=4, optimizer_state='keep')"
    assert unparse(parse(recipe)) == recipe
    assert parse("rifle_a(periods=3)")[0] == parse("rifle(periods=3, cycle='none')")[0]
    assert parse("none") == []
