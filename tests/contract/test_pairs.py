"""Every pair of methods from different families works together, or is refused with the reason."""

import functools
import itertools
import re
import time

import pytest
import torch

from rekindle import Direction, Method, PlainSum, Source
from rekindle.methods._catalog import library
from rekindle.registry import describe, directions, methods, parse, parse_direction
from rekindle.testing.network import Loop, batch, hybrid
from rekindle.tuner.net import operate

FAMILIES = {"penalties": "regulariser", "distillation": "regulariser", "restarts": "restart", "noise": "noise", "heads": "head",
            "layer_wise": "head", "directions": "direction", "anchors": "anchor", "flatness": "flatness"}  # fmt: skip
ACTIVE = {name: describe(kind(**kind.example)) for name, kind in methods().items()} | {name: name for name in directions()}


@functools.cache
def families() -> dict[str, list[str]]:
    """Names by family."""
    found: dict[str, list[str]] = {}
    for name, entry in library().items():
        found.setdefault(FAMILIES[entry.family], []).append(name)
    return found


@functools.cache
def pairs() -> list[tuple[str, str]]:
    """All pairs across families."""
    return [pair for one, other in itertools.combinations(families().values(), 2) for pair in itertools.product(one, other)]


def made(names: list[str]) -> tuple[list[Method], Direction | None]:
    recipe = "+".join(ACTIVE[name] for name in names if name in methods()) or "none"
    direction = [parse_direction(ACTIVE[name]) for name in names if name in directions()]
    return parse(recipe), direction[0] if direction else None


def refused() -> dict[frozenset[str], str]:
    """Reasons by pair, as the methods themselves give them."""
    found: dict[frozenset[str], str] = {}
    for pair in pairs():
        chosen, direction = made(list(pair))
        reasons = [one.incompatible_with(other) for one, other in itertools.permutations(chosen, 2)]
        if direction is not None and not isinstance(direction, PlainSum):
            reasons += [one.incompatible_with_direction() for one in chosen]
        found |= {frozenset(pair): reason for reason in reasons if reason}
    return found


REFUSED = refused()


@functools.cache
def covering() -> list[list[str]]:
    """Recipes of at most one method a family in which each allowed pair occurs: the richest addition first, by a fixed order."""
    left = {frozenset(pair) for pair in pairs()} - REFUSED.keys()
    recipes = []
    while left:
        recipe: list[str] = sorted(min(left, key=sorted))
        for members in families().values():
            if not set(members) & set(recipe):
                allowed = [name for name in members if not any(frozenset({name, other}) in REFUSED for other in recipe)]
                recipe.append(max(allowed, key=lambda name: (sum(frozenset({name, other}) in left for other in recipe), name)))
        left -= {frozenset(pair) for pair in itertools.combinations(recipe, 2)}
        recipes.append(recipe)
    return recipes


def test_what_is_refused_is_refused_with_its_reason() -> None:
    """That nothing else is refused shows where each other pair trains."""
    for pair, reason in REFUSED.items():
        chosen, direction = made(sorted(pair))
        with pytest.raises(ValueError, match=re.escape(reason)):
            Loop(chosen, direction=direction)


def test_the_set_covers_every_pair() -> None:
    covered = {frozenset(pair) for recipe in covering() for pair in itertools.combinations(recipe, 2)}
    assert {frozenset(pair) for pair in pairs()} - covered == REFUSED.keys()
    assert all(len(set(recipe) & set(members)) <= 1 for recipe in covering() for members in families().values())


@pytest.mark.parametrize("recipe", covering(), ids="+".join)
def test_recipe_trains_resumes_and_predicts(recipe: list[str]) -> None:
    began = time.process_time()
    torch.manual_seed(0)
    loop = _loop(recipe)
    whole = loop.run()
    other = _loop(recipe, seed=9)
    other.load(loop.kept[1, 1])
    resumed = other.run()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert all(torch.isfinite(value).all() for value in whole.values())
    assert torch.equal(_rebuilt(recipe, whole)(batch(5)[0]), other.model.eval()(batch(5)[0]))
    assert time.process_time() - began < 10


def _loop(recipe: list[str], seed: int = 0) -> Loop:
    chosen, direction = made(recipe)
    return Loop(chosen, hybrid(seed), epochs=2, steps=2, direction=direction, lr=0.001, keep_at=[(1, 1)])


def _rebuilt(recipe: list[str], weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The network as predict builds it: surgery on a fresh one, then the weights."""
    model = hybrid(seed=5)
    operate(model, made(recipe)[0], Source(model), ["fc"])
    model.load_state_dict(weights)
    return model.eval()


@pytest.mark.parametrize("family", sorted(set(families()) - {"direction"}))
def test_two_of_a_family_train_or_are_refused_in_one_sentence(family: str) -> None:
    for pair in itertools.combinations(families()[family], 2):
        chosen, _ = made(list(pair))
        reasons = [reason for one, other in itertools.permutations(chosen, 2) if (reason := one.incompatible_with(other))]
        try:
            whole = Loop(chosen, hybrid(0), epochs=2, steps=1, lr=0.001).run()
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) > 20, f"{pair}: {error}"
        else:
            assert not reasons, f"{pair} trains, though it says that it cannot: {reasons[0]}"
            assert all(torch.isfinite(value).all() for value in whole.values()), pair
