"""The share of the full counts that a run does, for trying it out."""

import math
from collections.abc import Callable

import pytest


@pytest.fixture
def count(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """A full count, times `--chaos-share`."""
    share: float = pytestconfig.getoption("--chaos-share")
    return lambda full: math.ceil(full * share)
