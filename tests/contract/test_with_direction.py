"""Under a direction nothing pulls on shared weights past it: a method acts in the gradient, or refuses."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor, nn

from rekindle import DTNH, L2, Direction, GrOD, Method, PlainSum
from rekindle.method import Clock, DataPasses
from rekindle.registry import describe, directions, methods, parse, parse_direction
from rekindle.spec import hints
from rekindle.testing.network import Loop, batch, hybrid, passes


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
    """Whether `after_step_` changes shared weights that have left their start, in a step outwards against their gradient."""
    try:
        loop = Loop([method])
    except ValueError as refused:
        pytest.skip(f"not on this network: {refused}")
    loop.tuner.prepare(DataPasses(passes, passes, held_out=passes))
    shared = loop.tuner.net.shared()
    with torch.no_grad():
        for p in shared.values():
            p.grad = torch.ones_like(p.add_(0.5))
        method.before_step(Clock(0, 4, 0, 3))
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
            assert "leave the direction out" in str(refused.value)
            assert ('solver="subgradient"' in str(refused.value)) == hasattr(VARIANTS[recipe], "solver")
        else:
            Loop([copy.deepcopy(VARIANTS[recipe])], direction=direction)


def test_some_act_after_the_step() -> None:
    acting = {name for name in methods() for method in variants(name) if method.incompatible_with_direction()}
    assert acting == {"l1_sp", "group_lasso_sp", "spd", "ftp", "tpgm"}


def test_one_of_your_own_that_acts_after_the_step_is_refused() -> None:
    @dataclasses.dataclass
    class Clamp(Method):
        def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
            """Anything."""

    Loop([Clamp()])
    with pytest.raises(ValueError, match="clamp and dtnh "):
        Loop([Clamp()], direction=DTNH())


def gradients(recipe: str, direction: Direction) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What one step hands to the optimiser, in float64 and away from the start, and the weights."""
    loop = Loop(parse(recipe), hybrid().double(), direction=direction)
    loop.model.train()
    loop.tuner.start_epoch(0)
    with torch.no_grad():
        for number, p in enumerate(loop.model.parameters()):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(number), dtype=p.dtype), alpha=0.1)
    x, y, indices = batch(0)
    loop.tuner.loss(loop.model, x.double(), y, nn.functional.cross_entropy, indices).backward()
    loop.tuner.gradients_()
    named = dict(loop.model.named_parameters())
    return {name: p.grad.clone() for name, p in named.items() if p.grad is not None}, {name: p.detach() for name, p in named.items()}


DIRECTED = [(name, grain) for name in directions() if name != "plain_sum" for grain in ("global", "layer", "tensor")]


@pytest.mark.parametrize("regulariser", ["l2_sp(alpha=0.3)", "feature_maps(strength=2.0)"])
@pytest.mark.parametrize(("name", "granularity"), DIRECTED)
def test_plain_weight_decay_stays_outside(regulariser: str, name: str, granularity: str) -> None:
    """The step is the direction's for the transfer regulariser alone, plus alpha * w on every parameter."""
    outside, inside = (directions()[name](granularity=granularity, weight_decay=place) for place in ("outside", "inside"))  # type: ignore[call-arg]
    alone, weights = gradients(regulariser, outside)
    found, _ = gradients(f"l2(alpha=0.2)+{regulariser}", outside)
    assert found.keys() == alone.keys()
    for key, gradient in alone.items():
        assert torch.allclose(found[key], gradient + 0.2 * weights[key], rtol=0, atol=1e-12), key
    projected, _ = gradients(f"l2(alpha=0.2)+{regulariser}", inside)
    acute = (name, granularity) in {
        (rule, "global") for rule in ("dtnh", "pcgrad", "gradvac")
    }  # No conflict here: the plain sum either way.
    assert acute or any(not torch.allclose(projected[key], found[key], rtol=0, atol=1e-6) for key in found)


def test_which_methods_are_plain_weight_decay() -> None:
    """A pull to zero of every weight, whatever the source."""
    assert [name for name, kind in methods().items() if kind.is_weight_decay] == ["l2"]


@pytest.mark.parametrize("name", [name for name, kind in methods().items() if not kind(**kind.example).incompatible_with_direction()])
def test_a_direction_without_a_transfer_regulariser_is_said(name: str) -> None:
    kind = methods()[name]
    acts = kind.penalty is not Method.penalty or kind.gradient is not Method.gradient
    for place in ("outside", "inside"):
        [*said] = Loop([kind(**kind.example)], direction=DTNH(weight_decay=place)).tuner.warnings()  # type: ignore[arg-type]
        idle = not acts or (kind.is_weight_decay and place == "outside")
        assert [text for text in said if text.startswith("dtnh ")] == ([said[-1]] if idle else [])
    assert not [text for text in Loop([kind(**kind.example)], direction=PlainSum()).tuner.warnings() if "plain_sum" in text]


def test_weight_decay_alone_is_named() -> None:
    [said] = Loop([L2()], direction=GrOD()).tuner.warnings()
    assert said.startswith("grod ") and "l2 " in said


@pytest.mark.parametrize("name", ["dtnh", "grod"])
def test_run_folders_of_0_1_had_weight_decay_inside(name: str) -> None:
    assert parse_direction(name).weight_decay == "outside"
    assert parse_direction(name, "0.1").weight_decay == "inside"
    assert parse_direction(f"{name}(weight_decay='outside')", "0.1") == parse_direction(name)
