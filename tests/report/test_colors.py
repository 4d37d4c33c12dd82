"""One table of colours: stable by name, and visible on light and dark paper."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekindle.report.colors import COLORS, DASHES, GREY, METHODS, method_color, method_styles

NAMES = st.sampled_from(["l2", "l2_sp", "rifle", "delta", "bss", "dropout", "stoch_norm", "lwf", "my_method"])
RECIPES = st.lists(NAMES, min_size=1, max_size=3).map("+".join)


def brightness(color: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", ["#ffffff", "#14191f"])
@pytest.mark.parametrize("color", [*COLORS, GREY])
def test_every_colour_stands_out_from_both_papers(color: str, paper: str) -> None:
    dark, light = sorted((brightness(color), brightness(paper)))
    assert (light + 0.05) / (dark + 0.05) >= 3


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
