"""Under a direction nothing pulls on shared weights past it: a method acts in the gradient, or refuses."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Literal, get_args, get_origin

import pytest
import torch
from torch import nn

from rekindle import DTNH, GrOD, Method
from rekindle.method import Clock, DataPasses
from rekindle.registry import describe, methods
from rekindle.spec import hints
from tests.contract.network import Loop, passes


def variants(name: str) -> list[Method]:
    """The method's example, and with each choice of each option that can stand with it."""
    kind, found = methods()[name], []
    for option, hint in hints(kind).items():
        choices = get_args(hint) if get_origin(hint) is Literal else (True, False) if hint is bool else ()
        for choice in choices:
            try:
                found.append(kind(**{**kind.example, option: choice}))
            except ValueError:
                continue  # Needs other options beside it.
    return [kind(**kind.example), *found]


VARIANTS = {describe(method): method for name in methods() for method in variants(name)}


def moved_after_a_step(method: Method) -> bool:
    """Whether `after_step_` changes shared weights that have left their start."""
    try:
        loop = Loop([method])
    except ValueError as refused:
        pytest.skip(f"not on this network: {refused}")
    loop.tuner.prepare(DataPasses(passes, passes))
    shared = loop.tuner.net.shared()
    with torch.no_grad():
        for p in shared.values():
            p.add_(0.5)
        before = [p.clone() for p in shared.values()]
        method.after_step_(Clock(0, 4, 0, 3), lambda parameter: 0.1)
    return any(not torch.equal(p, old) for p, old in zip(shared.values(), before, strict=True))


@pytest.mark.parametrize("recipe", VARIANTS)
def test_what_acts_after_the_step_is_refused_and_nothing_else_is(recipe: str) -> None:
    acts = moved_after_a_step(copy.deepcopy(VARIANTS[recipe]))
    for direction in (DTNH(), GrOD()):
        if acts:
            with pytest.raises(ValueError, match=f"{VARIANTS[recipe].name} and {direction.name} ") as refused:
                Loop([copy.deepcopy(VARIANTS[recipe])], direction=direction)
            assert 'solver="subgradient"' in str(refused.value)
        else:
            Loop([copy.deepcopy(VARIANTS[recipe])], direction=direction)


def test_some_act_after_the_step() -> None:
    assert {name for name in methods() for method in variants(name) if method.incompatible_with_direction()} == {"l1_sp", "group_lasso_sp"}


def test_one_of_your_own_that_acts_after_the_step_is_refused() -> None:
    @dataclasses.dataclass
    class Clamp(Method):
        def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
            """Anything."""

    Loop([Clamp()])
    with pytest.raises(ValueError, match="clamp and dtnh "):
        Loop([Clamp()], direction=DTNH())
