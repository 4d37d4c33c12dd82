"""The statistics against closed forms and numbers worked out by hand."""

import math

import pytest

from rekindle.report.statistics import holm, mcnemar, paired_summary, wilson


def test_wilson_against_the_closed_form() -> None:
    n, share, z = 50, 0.9, 1.959963984540054
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    assert wilson(share, n) == pytest.approx((centre - half, centre + half))
    assert wilson(1.0, 5)[1] == 1.0 and wilson(0.0, 5)[0] == 0.0


def test_mcnemar_by_hand() -> None:
    """Only the first right once, only the second five times: p = 2 (C(6,0) + C(6,1)) / 2^6 = 14 / 64."""
    first = dict(enumerate([True] * 2 + [False] * 5 + [True] + [False] * 2)) | {"only here": True}
    second = dict(enumerate([True] * 2 + [True] * 5 + [False] + [False] * 2))
    found = mcnemar(first, second)
    assert [found[key] for key in ("count", "both_right", "only_first_right", "only_second_right", "both_wrong")] == [10, 2, 1, 5, 2]
    assert found["difference"] == pytest.approx(0.4) and found["p"] == pytest.approx(14 / 64)


def test_paired_summary_by_hand() -> None:
    """Differences 0.03, 0.02, 0.04: mean 0.03, standard error 0.01 / sqrt(3), t with two degrees of freedom at 97.5 % is 4.30265."""
    found = paired_summary([0.80, 0.82, 0.81], [0.83, 0.84, 0.85])
    half = 4.302652729911275 * 0.01 / math.sqrt(3)
    assert found["difference"] == pytest.approx(0.03) and found["interval"] == pytest.approx((0.03 - half, 0.03 + half))
    assert (found["mean_a"], found["std_a"], found["mean_b"], found["std_b"]) == pytest.approx((0.81, 0.01, 0.84, 0.01))
    t = 0.03 / (0.01 / math.sqrt(3))
    assert found["p"] == pytest.approx(1 - t / math.sqrt(2 + t * t)), "the t distribution with two degrees of freedom has a closed form"


def test_one_seed_has_no_spread_interval_or_p() -> None:
    found = paired_summary([0.5], [0.7])
    assert found["difference"] == pytest.approx(0.2) and found["n"] == 1
    assert found["std_a"] is found["std_b"] is found["interval"] is found["p"] is None


def test_equal_differences_are_no_certainty() -> None:
    """0.3 - 0.2 and 0.5 - 0.4 differ by rounding alone; a t test would call that overwhelming evidence."""
    found = paired_summary([0.2, 0.4], [0.3, 0.5])
    assert found["interval"] is None and found["p"] is None


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, None, 0.03]) == [pytest.approx(0.09), pytest.approx(0.04), None, pytest.approx(0.09)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
