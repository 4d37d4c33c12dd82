"""What every registered method passes without a line of its own."""

import pytest
import torch
from torch import nn

from rekindle import Method
from rekindle.method import Clock
from rekindle.registry import methods, parse, unparse
from tests.toys import run_epochs, toy, toy_tuner

NAMES = list(methods())


def trained(made: list[Method], epochs: int = 4) -> dict[str, torch.Tensor]:
    model, tuner, optimizer = toy_tuner(made, toy(norm=True), epochs=epochs)
    run_epochs(model, tuner, optimizer, tuner.scheduler(optimizer), range(epochs))
    return model.state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_neutral_settings_change_nothing(name: str) -> None:
    plain, neutral = trained([]), trained([methods()[name](**methods()[name].neutral)])
    assert all(torch.equal(plain[key], neutral[key]) for key in plain)


@pytest.mark.parametrize("name", NAMES)
def test_repr_and_recipe_parse_back(name: str) -> None:
    method = methods()[name]()
    assert eval(repr(method), {type(method).__name__: type(method)}) == method  # noqa: S307
    assert parse(unparse([method])) == [method]


@pytest.mark.parametrize("name", NAMES)
def test_keys_stay_and_the_global_generator_is_untouched(name: str) -> None:
    keys = list(toy(norm=True).state_dict())
    before = torch.get_rng_state()
    assert list(trained([methods()[name]()])) == keys
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_closed_form_is_autograds(name: str) -> None:
    method = methods()[name]()
    model = toy().double()
    toy_tuner([method], model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.linspace(-1, 1, p.numel(), dtype=p.dtype).view_as(p))
    value = method.value(Clock(0, 8))
    closed = {id(p): g for p, g in method.gradient(Clock(0, 8))}
    if value is None:
        assert not closed
        return
    value.backward()
    for p in model.parameters():
        assert torch.allclose(closed.get(id(p), torch.zeros_like(p)), torch.zeros_like(p) if p.grad is None else p.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [(1, 0), (2, 0), (2, 1), (3, 2)])
def test_resume_is_exact(name: str, at: tuple[int, int]) -> None:
    whole = trained([methods()[name]()])
    model, tuner, optimizer = toy_tuner([methods()[name]()], toy(norm=True), epochs=4)
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, scheduler, range(4), stop=at)
    saved = [part.state_dict() for part in (model, optimizer, scheduler, tuner)]
    other, tuner, optimizer = toy_tuner([methods()[name]()], toy(seed=9, norm=True), epochs=4)
    scheduler = tuner.scheduler(optimizer)
    for part, state in zip((other, optimizer, scheduler, tuner), saved, strict=True):
        part.load_state_dict(state)
    run_epochs(other, tuner, optimizer, scheduler, range(at[0], 4))
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in whole.items())


@pytest.mark.parametrize("name", NAMES)
def test_bf16_and_compile(name: str) -> None:
    model, tuner, optimizer = toy_tuner([methods()[name]()], epochs=2, steps=1)
    scheduler = tuner.scheduler(optimizer)
    compiled = torch.compile(model, backend="aot_eager")
    for epoch in range(2):
        tuner.start_epoch(epoch)
        with torch.autocast("cpu", torch.bfloat16):
            loss = tuner.loss(compiled, torch.randn(4, 4), torch.tensor([0, 1, 2, 0]), nn.functional.cross_entropy)
        loss.backward()
        tuner.gradients_()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_mixed_recipes_parse_back() -> None:
    recipe = "l2_sp(alpha=0.1)+rifle(periods=4, optimizer_state='keep')"
    assert unparse(parse(recipe)) == recipe
    assert parse("rifle_a(periods=3)")[0] == parse("rifle(periods=3, cycle='none')")[0]
    assert parse("none") == []
