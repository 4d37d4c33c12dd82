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
# What is compared most; any other method has the colour that its name draws.
METHODS = {
    "none": GREY, "l2": BLUE, "rifle": RED, "l2_sp": GREEN, "l2_sp+rifle": VIOLET, "delta": PINK, "bss": ORANGE, "l2_sp_fisher": OLIVE,
    "auto": GREY, "lp_ft": ORANGE, "lwf": OLIVE, "stochastic_depth": PINK,
}  # fmt: skip
BESIDE = "l2"  # Plain weight decay stands beside most methods and tells nothing about them.


def method_color(recipe: str) -> str:
    """The colour of a recipe, whatever its options: "l2+rifle(periods=2)" has that of "rifle"."""
    names = [name.strip() for name in re.sub(r"\([^()]*\)", "", recipe).split("+")]
    told = "+".join(sorted(name for name in names if name != BESIDE) or [BESIDE])
    return METHODS.get(told) or COLORS[crc32(told.encode("utf-8", "replace")) % len(COLORS)]


def method_styles(recipes: Sequence[str]) -> list[tuple[str, Dash]]:
    """A colour and a line style for each of the lines of one figure: what shares a colour differs in its dashes, as long as those last."""
    colors = [method_color(recipe) for recipe in recipes]
    return [(color, DASHES[colors[:place].count(color) % len(DASHES)]) for place, color in enumerate(colors)]
