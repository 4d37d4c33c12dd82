"""Checks of options that methods share; each refuses with one sentence that says what is allowed."""

import math

from rekindle.method import require


def check_number(owner: str, name: str, value: float, *, positive: bool = False) -> None:
    """Refuse what is not a finite number of at least 0, or above 0 if `positive`."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    wanted = "above 0" if positive else "of at least 0"
    require(number and (value > 0 if positive else value >= 0), f"{owner}: {name} must be a finite number {wanted}, found {value!r}.")


def check_whole(owner: str, name: str, value: int, least: int) -> None:
    """Refuse what is not a whole number of at least `least`."""
    ok = isinstance(value, int) and not isinstance(value, bool) and value >= least
    require(ok, f"{owner}: {name} must be a whole number of at least {least}, found {value!r}.")


def check_probability(owner: str, name: str, value: float, above_zero: bool = False, below_one: bool = False) -> None:
    """Refuse what is no number in [0, 1], or in an interval that leaves an end out.

    Args:
        owner: The method's name, for the message.
        name: The option's name.
        value: What was given.
        above_zero: Whether 0 is refused.
        below_one: Whether 1 is refused.

    Raises:
        ValueError: If it is out of range, NaN, or no number.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    ok = number and not (above_zero and value == 0) and not (below_one and value == 1)
    low, high = "above 0" if above_zero else "at least 0", "below 1" if below_one else "at most 1"
    require(ok, f"{owner}: {name} must be a number {low} and {high}, found {value!r}.")


def check_choice(owner: str, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a text that is not one of `allowed`."""
    listed = " or ".join(f'"{choice}"' for choice in allowed)
    require(isinstance(value, str) and value in allowed, f"{owner}: {name} must be {listed}, found {value!r}.")


def check_flag(owner: str, name: str, value: bool) -> None:
    """Refuse what is neither True nor False."""
    require(isinstance(value, bool), f"{owner}: {name} must be True or False, found {value!r}.")
