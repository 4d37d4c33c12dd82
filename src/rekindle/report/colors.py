"""The colours of pictures and pages: one table, in which a method has the same colour everywhere. It loads no torch.

Every one stands out from white paper and from the dark paper of the pages alike (a contrast of 3 and more, as WCAG 2.2 asks of
graphics), so a figure need not know which it lies on.
"""

import re
from collections.abc import Sequence
from typing import Literal
from zlib import crc32

# After Okabe and Ito, whose colours colour-blind people can tell apart; those too pale for white paper are darker here.
BLUE, RED, GREEN, PINK, ORANGE, VIOLET, OLIVE, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#C46A9C", "#B97F00", "#8F6BC8", "#6B8E23", "#777777",
)  # fmt: skip
COLORS = (BLUE, RED, GREEN, PINK, ORANGE, VIOLET, OLIVE)
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
# The pages' own colours by the name of their CSS variable, on light paper and on dark.
PAGE = {
    "ink": ("#1c2733", "#e6ebf1"), "paper": ("#ffffff", "#14191f"), "soft": ("#f4f6f9", "#1d242c"), "line": ("#d8dee6", "#36404b"),
    "faint": ("#5b6774", "#9aa7b4"), "accent": ("#0072b2", "#56b4e9"), "bar": ("#cfe4f2", "#23435a"), "good": ("#00734f", "#4fc79b"),
    "bad": ("#b3261e", "#ff8a80"), "unsure": ("#a85b00", "#f0a64b"),
}  # fmt: skip
# What is compared most; any other method has the colour that its name draws.
METHODS = {
    "none": GREY, "l2": BLUE, "rifle": RED, "l2_sp": GREEN, "l2_sp+rifle": VIOLET, "delta": PINK, "bss": ORANGE, "l2_sp_fisher": OLIVE,
    "auto": GREY, "lp_ft": ORANGE, "lwf": OLIVE, "stochastic_depth": PINK,
}  # fmt: skip
BESIDE = "l2"  # Plain weight decay stands beside most methods and tells nothing about them.


def palette(*names: str) -> str:
    """CSS that gives the variables of `PAGE`, or those named, their values in light and, where the reader's device is dark, in dark.

    Returns:
        CSS for a style element.
    """
    light, dark = (";".join(f"--{name}:{PAGE[name][scheme]}" for name in names or PAGE) for scheme in range(2))
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


def method_color(recipe: str) -> str:
    """The colour of a recipe, whatever its options: "l2+rifle(periods=2)" has that of "rifle".

    Returns:
        A colour such as "#0072B2".
    """
    told = _told(recipe)
    return METHODS.get(told) or COLORS[crc32(told.encode("utf-8", "replace")) % len(COLORS)]


def method_styles(recipes: Sequence[str]) -> list[tuple[str, Dash]]:
    """A colour and a line style for each of the lines of one figure.

    A method that `METHODS` does not name gives way where its colour is another's, as long as there are free ones; what still shares a
    colour differs in its dashes, as long as those last.

    Returns:
        A pair for each recipe, in order; no two alike as long as they last.
    """
    told = [_told(recipe) for recipe in recipes]
    colors = {name: METHODS[name] for name in told if name in METHODS}
    for name in told:
        if name not in colors:
            first = COLORS.index(method_color(name))
            turn = COLORS[first:] + COLORS[:first]
            colors[name] = next((color for color in turn if color not in colors.values()), turn[0])
    places = [colors[name] for name in told]
    return [(color, DASHES[places[:place].count(color) % len(DASHES)]) for place, color in enumerate(places)]


def _told(recipe: str) -> str:
    """What tells a recipe from others: its methods without options, and without plain weight decay where others stand beside it."""
    names = [name.strip() for name in re.sub(r"\([^()]*\)", "", recipe).split("+")]
    return "+".join(sorted(name for name in names if name != BESIDE) or [BESIDE])
