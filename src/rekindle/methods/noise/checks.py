"""Checks that the noise methods share."""

from rekindle.method import require


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
    """Refuse an unknown word."""
    require(value in allowed, f"{owner}: {name} must be one of {', '.join(allowed)}, found {value!r}.")
