"""The few statistics of the reports; each leaves out what its data cannot tell."""

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

# Differences of accuracies that are equal but for rounding vary by less than this.
NO_SPREAD = 1e-9


def wilson(accuracy: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval (JASA 1927) for a share of `count` independent pictures; both are fractions from 0 to 1.

    Example:
        >>> [round(end, 3) for end in wilson(0.9, 100)]
        [0.826, 0.945]
    """
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * count), count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def paired_summary(values_a: list[float], values_b: list[float]) -> dict[str, Any]:
    """Two methods measured on the same seeds.

    Args:
        values_a: One value a seed.
        values_b: The other method's, in the same order of seeds.

    Returns:
        mean_a, std_a, mean_b, std_b (ddof 1), difference (mean of b - a), interval (its 95 % t interval: low, high), n, and p
        (two-sided, of a paired t test). Spread, interval and p are None for one pair; interval and p also where all differences
        are equal, since then there is no spread to judge by.

    Example:
        >>> found = paired_summary([0.80, 0.82, 0.81], [0.83, 0.84, 0.85])
        >>> round(found["difference"], 3), [round(end, 3) for end in found["interval"]]
        (0.03, [0.005, 0.055])
    """
    from scipy import stats

    differences = [b - a for a, b in zip(values_a, values_b, strict=True)]
    many = len(differences) > 1
    found: dict[str, Any] = {
        "mean_a": mean(values_a),
        "std_a": stdev(values_a) if many else None,
        "mean_b": mean(values_b),
        "std_b": stdev(values_b) if many else None,
        "difference": mean(differences),
        "interval": None,
        "n": len(differences),
        "p": None,
    }
    if many and stdev(differences) > NO_SPREAD:
        test = stats.ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(0.95)
        found |= {"interval": (float(interval.low), float(interval.high)), "p": float(test.pvalue)}
    return found


def mcnemar(first: Mapping[Any, bool], second: Mapping[Any, bool]) -> dict[str, Any]:
    """Agreement of two classifiers, and McNemar's exact test (Psychometrika 1947).

    Args:
        first: Whether it was right, by picture.
        second: The same for the other; only pictures of both count, and there is at least one.

    Returns:
        count, both_right, both_wrong, only_first_right, only_second_right, difference (accuracy of second - first), p (two-sided).
    """
    from scipy.stats import binomtest

    common = first.keys() & second.keys()
    only_first = sum(first[key] and not second[key] for key in common)
    only_second = sum(second[key] and not first[key] for key in common)
    both = sum(first[key] and second[key] for key in common)
    apart = only_first + only_second
    return {
        "count": len(common),
        "both_right": both,
        "both_wrong": len(common) - both - apart,
        "only_first_right": only_first,
        "only_second_right": only_second,
        "difference": (only_second - only_first) / len(common),
        "p": float(binomtest(only_first, apart).pvalue) if apart else 1.0,
    }


def holm(values: list[float | None]) -> list[float | None]:
    """p values after Holm's correction for their number (Scand. J. Statistics 1979); None stays None and does not count.

    Example:
        >>> holm([0.5, None, 0.125])
        [0.5, None, 0.25]
    """
    order = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        corrected[place] = least
    return corrected
