"""The demonstration's words follow its numbers."""

import pytest

from rekindle.cli.demo import outcome


@pytest.mark.parametrize(
    ("difference", "low", "high", "words"),
    [(0.02, 0.01, 0.03, "helps here: +2.00 points"), (-0.02, -0.03, -0.01, "hurts here: -2.00 points"), (0.02, -0.01, 0.05, "no difference that so few seeds could show"), (0.0, None, None, "too few differing pairs")],
)  # fmt: skip
def test_outcome(difference: float, low: float | None, high: float | None, words: str) -> None:
    assert words in outcome({"from": "l2", "to": "l2+rifle", "n": 3, "difference": difference, "low": low, "high": high})
