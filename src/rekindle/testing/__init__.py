"""What every method and direction has to stand, for those of other people too: `rekindle test-method NAME`, or in a test of one's own::

@pytest.mark.parametrize("check", checks_of(EarlyStrong), ids=lambda check: check.__name__)
def test_contract(check):
    check(EarlyStrong)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rekindle.method import Direction, Method
from rekindle.testing.direction_checks import DIRECTION_CHECKS
from rekindle.testing.method_checks import METHOD_CHECKS
from rekindle.testing.verdict import Skipped

Kind = type[Method] | type[Direction]


@dataclass(frozen=True)
class Verdict:
    """What one check found.

    Attributes:
        check: What was checked, as a sentence without its full stop.
        outcome: "ok", "skipped" or "broken".
        why: Of a check that was skipped or is broken, else "".
    """

    check: str
    outcome: str
    why: str = ""


def checks_of(kind: Kind) -> list[Callable[[Any], None]]:
    """The checks for a class: each takes it and raises `AssertionError`, or `Skipped` where it does not concern it.

    Returns:
        Functions, in the order in which they are best run.
    """
    return [*(METHOD_CHECKS if issubclass(kind, Method) else DIRECTION_CHECKS)]


def run_check(check: Callable[[Any], None], kind: Kind) -> Verdict:
    """Run one check; whatever the method raises is the check's failure, and is told as such.

    Returns:
        The check's name, its outcome and what it said.
    """
    title = (check.__doc__ or check.__name__).partition("\n")[0].rstrip(".")
    try:
        check(kind)
    except Skipped as reason:
        return Verdict(title, "skipped", str(reason))
    except Exception as error:  # noqa: BLE001  Other people's code may raise anything.
        kind_of_error = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return Verdict(title, "broken", f"{kind_of_error}{str(error).strip() or 'no reason was given'}".splitlines()[0])
    return Verdict(title, "ok")
