"""One table of colours: stable by name, and visible on light and dark paper."""

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekindle.report.colors import COLORS, DASHES, GREY, METHODS, PAGE, method_color, method_styles, palette

NAMES = st.sampled_from(["l2", "l2_sp", "rifle", "delta", "bss", "dropout", "stoch_norm", "lwf", "my_method"])
LETTERS = ("ink", "faint", "accent", "good", "bad", "unsure")
SOURCE = Path(__file__).resolve().parents[2] / "src/rekindle"
RECIPES = st.lists(NAMES, min_size=1, max_size=3).map("+".join)


def brightness(color: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG's, from 1 to 21."""
    dark, light = sorted((brightness(one), brightness(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("paper", PAGE["paper"])
@pytest.mark.parametrize("color", [*COLORS, GREY])
def test_every_colour_stands_out_from_both_papers(color: str, paper: str) -> None:
    assert contrast(color, paper) >= 3


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), [*product(LETTERS, ["paper", "soft"]), ("ink", "bar")])
def test_letters_are_readable_on_every_ground(text: str, ground: str, scheme: int) -> None:
    assert contrast(PAGE[text][scheme], PAGE[ground][scheme]) >= 4.5


def test_pages_state_their_colours_in_one_place() -> None:
    templates = {path.name: path.read_text("utf-8") for path in SOURCE.rglob("*.j2")}
    assert [name for name, text in templates.items() if "{{ palette }}" in text] == ["page.css.j2"]
    for name, text in templates.items():
        assert not re.search(r"--\w+: *#|prefers-color-scheme|color-scheme:", text), name
        assert set(re.findall(r"var\(--(\w+)\)", text)) <= {*PAGE, "share", "shade"}, name


def test_the_palette_names_what_is_asked_for() -> None:
    assert palette("ink") == ":root{color-scheme:light dark;--ink:#1c2733}@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1}}"
    assert all(f"--{name}:{value}" in palette() for name, values in PAGE.items() for value in values)


@given(RECIPES, st.permutations(range(3)))
def test_options_order_and_weight_decay_change_no_colour(recipe: str, order: list[int]) -> None:
    names = recipe.split("+")
    other = "+".join(f"{names[i]}(alpha=0.1, periods=4)" for i in order if i < len(names))
    assert method_color(recipe) == method_color(other) == method_color(f"l2 + {recipe}") in (*COLORS, GREY)


@given(st.lists(RECIPES, max_size=12), st.lists(RECIPES, max_size=12))
def test_a_method_has_its_colour_whatever_it_is_drawn_with(before: list[str], after: list[str]) -> None:
    styles = method_styles([*before, "l2+rifle", *after])
    assert styles[len(before)][0] == METHODS["rifle"]


@given(st.lists(RECIPES, max_size=len(DASHES)))
def test_lines_of_one_colour_differ_in_their_dashes(recipes: list[str]) -> None:
    styles = method_styles(recipes)
    assert len(set(styles)) == len(styles)


def test_what_is_compared_most_has_colours_of_its_own() -> None:
    common = [method_color(recipe) for recipe in ("l2", "l2+rifle(periods=2)", "l2_sp", "l2_sp+rifle(periods=2)", "delta", "bss")]
    assert len(set(common)) == len(common)
