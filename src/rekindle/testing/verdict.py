"""How a check says what it found."""


class Skipped(Exception):
    """A check that does not concern a method; the text says why."""


def expect(condition: object, why: str) -> None:
    """Break a check, with a sentence, unless the condition holds. Unlike `assert`, it also stands under ``python -O``."""
    if not condition:
        raise AssertionError(why)
