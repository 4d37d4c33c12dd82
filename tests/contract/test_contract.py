"""What every registered method and direction passes without a line of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rekindle import Direction, Method
from rekindle.registry import directions, methods, parse, unparse
from rekindle.testing import checks_of
from rekindle.testing.network import Loop, batch, data
from rekindle.testing.verdict import Skipped

NAMES = list(methods())
KINDS: dict[str, type[Method] | type[Direction]] = {**methods(), **directions()}
# One of each kind of hook, as many as go together in one network; each by itself takes a minute together.
COMPILED = ["l2+rifle+dropconnect", "delta+stochastic_depth", "source_classifier", "lp_ft"]
PAIRS = [pytest.param(kind, check, id=f"{name}-{check.__name__}") for name, kind in KINDS.items() for check in checks_of(kind)]


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Masks inside a network come from the global generator."""
    torch.manual_seed(0)


@pytest.mark.parametrize(("kind", "check"), PAIRS)
def test_contract(kind: type[Method] | type[Direction], check: Callable[[Any], None]) -> None:
    try:
        check(kind)
    except Skipped as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("names", [*COMPILED, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in COMPILED)])
def test_bf16_and_compile(names: str) -> None:
    loop = Loop([methods()[name](**methods()[name].example) for name in names.split("+")], epochs=2, steps=1)
    loop.tuner.prepare(data())
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
def test_options_that_there_are_not_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no option 'nonsense'"):
        parse(f"{name}(nonsense=1)")


def test_mixed_recipes_parse_back() -> None:
    recipe = "l2_sp(alpha=0.1)+rifle(periods=4, optimizer_state='keep')"
    assert unparse(parse(recipe)) == recipe
    assert parse("rifle_a(periods=3)")[0] == parse("rifle(periods=3, cycle='none')")[0]
    assert parse("none") == []
