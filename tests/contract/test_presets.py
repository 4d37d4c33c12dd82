"""A preset fills in what is not given; what is given beside it counts, or is refused."""

import copy
import dataclasses
import pickle
from typing import Any, Literal, get_args, get_origin

import pytest

from rekindle import Direction, Method, Rifle, UserError
from rekindle.methods._catalog import VARIANTS
from rekindle.registry import OF_0_1, describe, directions, methods, parse, parse_direction
from rekindle.spec import hints

KINDS: dict[str, type[Method] | type[Direction]] = {**methods(), **directions()}
WITH_PRESET = [name for name, kind in KINDS.items() if "preset" in hints(kind)]
PRESETS = [(name, preset) for name in WITH_PRESET for preset in KINDS[name].presets]
OPTIONS = [(name, preset, option) for name, preset in PRESETS for option in KINDS[name].presets[preset]]


def others(kind: type, option: str, value: Any) -> list[Any]:
    """Values that the option takes on its own besides `value`: all of a choice, and some of a number."""
    hint = hints(kind)[option]
    numbers = [2, 3] if type(value) is int else [0.25, 0.75]
    choices = list(get_args(hint)) if get_origin(hint) is Literal else [True, False] if hint is bool else numbers
    return [choice for choice in choices if choice != value]


def read(text: str) -> Method | Direction:
    return parse_direction(text) if text.partition("(")[0] in directions() else parse(text)[0]


def test_some_have_presets_and_each_states_them() -> None:
    assert set(WITH_PRESET) == {name for name, kind in KINDS.items() if kind.presets} >= {"rifle", "grod"}
    for name in WITH_PRESET:
        [choices, _] = get_args(hints(KINDS[name])["preset"])
        assert set(get_args(choices)) == set(KINDS[name].presets)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_it_fills_in_and_is_read_back(name: str, preset: str) -> None:
    kind = KINDS[name]
    made = kind(preset=preset)  # type: ignore[call-arg]
    assert {option: getattr(made, option) for option in kind.presets[preset]} == kind.presets[preset]
    for text in (describe(made), f"{name}(preset={preset!r})"):
        assert read(text) == made
    assert eval(repr(made), {kind.__name__: kind}) == copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert dataclasses.replace(made) == made  # type: ignore[type-var]


@pytest.mark.parametrize(("name", "preset", "option"), OPTIONS)
def test_what_is_given_beside_it_counts_or_is_refused(name: str, preset: str, option: str) -> None:
    kind = KINDS[name]
    value = kind.presets[preset][option]
    assert kind(**{"preset": preset, option: value}) == kind(preset=preset)  # type: ignore[call-arg]
    assert others(kind, option, value)
    for other in others(kind, option, value):
        if other in kind.beside_preset.get(option, ()):
            made = kind(**{"preset": preset, option: other})
            assert getattr(made, option) == other and read(describe(made)) == made == eval(repr(made), {kind.__name__: kind})
        else:
            with pytest.raises(ValueError, match=name) as refused:
                kind(**{"preset": preset, option: other})
            said = str(refused.value)
            assert all(f"{key}={found!r}" in said for key, found in ((option, other), (option, value), ("preset", preset)))
            with pytest.raises(UserError, match=f"{option}={other!r}"):
                read(f"{name}(preset={preset!r}, {option}={other!r})")


@pytest.mark.parametrize("name", WITH_PRESET)
def test_what_may_be_given_otherwise_is_a_named_variant(name: str) -> None:
    named = [fixed for base, fixed in VARIANTS.values() if base == name]
    for option, values in KINDS[name].beside_preset.items():
        assert all({option: value} in named for value in values)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_recipes_of_0_1_mean_what_they_meant(name: str, preset: str) -> None:
    """There a preset overrode what stood beside it."""
    kind = KINDS[name]
    for option, value in kind.presets[preset].items():
        for other in others(kind, option, value):
            text = f"{name}({option}={other!r}, preset={preset!r})"
            found = parse_direction(text, "0.1") if name in directions() else parse(text, "0.1")[0]
            assert found == kind(preset=preset, **OF_0_1.get(name, {}))  # type: ignore[call-arg]


def test_rifle_a_with_the_papers_code_is_the_shipped_command() -> None:
    """RIFLE-A with the authors' trimming and kept momentum."""
    [made] = parse('rifle_a(preset="paper_code")')
    assert made == Rifle(preset="paper_code", cycle="none")
    assert isinstance(made, Rifle) and (made.cycle, made.trim, made.optimizer_state, made.periods) == ("none", True, "keep", 2)
    assert parse('rifle_a(preset="paper_code")', "0.1") == parse('rifle(preset="paper_code")')


def test_a_subclass_that_forgets_to_fill_in_is_refused() -> None:
    @dataclasses.dataclass
    class Forgetful(Rifle):
        """A dataclass of its own, with an `__init__` that knows no presets."""

    assert Forgetful(periods=3).periods == 3
    with pytest.raises(ValueError, match="preset='paper_code'"):
        Forgetful(preset="paper_code")
