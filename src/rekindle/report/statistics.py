"""The few statistics of the reports; each leaves out what its data cannot tell."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any, Protocol, TypeVar

# Differences of accuracies that are equal but for rounding vary by less than this.
NO_SPREAD = 1e-9
# Below this p a difference is called significant.
LEVEL = 0.05


def wilson(accuracy: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval (JASA 1927) for a share of `count` independent pictures; both are fractions from 0 to 1.

    Returns:
        (low, high), each from 0 to 1.

    Examples:
        >>> [round(end, 3) for end in wilson(0.9, 100)]
        [0.826, 0.945]
    """
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * count), count).proportion_ci(0.95, "wilson")
    return float(interval.low), float(interval.high)


def paired_summary(values_a: list[float], values_b: list[float], folds: int = 0) -> dict[str, Any]:
    """Two methods measured on the same seeds, or on the same folds of the same cross-validations.

    Args:
        values_a: One value a seed, or a seed and fold.
        values_b: The other method's, in the same order.
        folds: Of each cross-validation; then the variance is corrected as in `over_folds`. 0 for runs of their own.

    Returns:
        mean_a, std_a, mean_b, std_b (ddof 1), difference (mean of b - a), interval (its 95 % t interval: low, high), n, and p
        (two-sided, of a paired t test). Spread, interval and p are None for one pair; interval and p also where all differences
        are equal, since then there is no spread to judge by.

    Examples:
        >>> found = paired_summary([0.80, 0.82, 0.81], [0.83, 0.84, 0.85])
        >>> round(found["difference"], 3), [round(end, 3) for end in found["interval"]]
        (0.03, [0.005, 0.055])
    """
    from scipy import stats

    differences = [b - a for a, b in zip(values_a, values_b, strict=True)]
    many, middle = len(differences) > 1, mean(differences)
    found: dict[str, Any] = {
        "mean_a": mean(values_a),
        "std_a": stdev(values_a) if many else None,
        "mean_b": mean(values_b),
        "std_b": stdev(values_b) if many else None,
        "difference": middle,
        "interval": None,
        "n": len(differences),
        "p": None,
    }
    if many and stdev(differences) > NO_SPREAD:
        error = _standard_error(differences, folds)
        t = stats.t(len(differences) - 1)
        half = float(t.ppf(0.975)) * error
        found |= {"interval": (middle - half, middle + half), "p": float(2 * t.sf(abs(middle) / error))}
    return found


def over_folds(values: list[float]) -> dict[str, Any]:
    """A share measured on each fold of a cross-validation.

    Args:
        values: One a fold, at least two; fractions from 0 to 1.

    Returns:
        mean, std (ddof 1) and interval: 95 % by Student's t, its variance corrected for the training pictures that folds have in common
        (Nadeau and Bengio, Machine Learning 2003); None where all values are equal.

    Examples:
        >>> found = over_folds([0.8, 0.9, 0.85, 0.8, 0.9])
        >>> round(found["mean"], 3), [round(end, 3) for end in found["interval"]]
        (0.85, [0.757, 0.943])
    """
    from scipy import stats

    middle, spread, folds = mean(values), stdev(values), len(values)
    half = float(stats.t.ppf(0.975, folds - 1)) * _standard_error(values, folds)
    interval = (max(0.0, middle - half), min(1.0, middle + half)) if spread > NO_SPREAD else None
    return {"mean": middle, "std": spread, "interval": interval}


def _standard_error(values: list[float], folds: int) -> float:
    """Of a mean: folds share training pictures, so the variance gains the ratio of pictures held out to pictures trained on."""
    shared = 1 / (folds - 1) if folds else 0.0
    return float(stdev(values) * (1 / len(values) + shared) ** 0.5)


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
    """p values after Holm's correction for their number (Scand. J. Statistics 1979).

    None, a hypothesis that the data could not test, stays None and counts: which p values there are must not decide how strict the
    correction is.

    Returns:
        Corrected p values in the order of the given ones, at most 1.

    Examples:
        >>> holm([0.5, None, 0.125])
        [1.0, None, 0.375]
    """
    order = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * p))
        corrected[place] = least
    return corrected


def smallest_p(tasks: int) -> float:
    """The smallest two-sided p value that a Wilcoxon signed-rank test can give, all differences being of one sign.

    Args:
        tasks: How many of them differ at all; the test leaves out the others.

    Returns:
        A number above 0 and at most 1.

    Examples:
        >>> smallest_p(5), smallest_p(6)
        (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - tasks))


def nonzero(differences: list[float]) -> list[float]:
    """Those that are not zero, but for rounding: Wilcoxon's test leaves out the others.

    Returns:
        The other differences, in order.

    Examples:
        >>> nonzero([0.1, 0.0, -0.2])
        [0.1, -0.2]
    """
    return [value for value in differences if abs(value) >= NO_SPREAD]


def wilcoxon_over_tasks(differences: list[float]) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test (Biometrics 1945); None where so few tasks that differ could not be significant.

    Args:
        differences: One a task, each a mean over seeds: seeds of one task are no independent tasks.

    Returns:
        A number above 0 and at most 1, or None.
    """
    from scipy.stats import wilcoxon

    left = nonzero(differences)
    return None if smallest_p(len(left)) >= LEVEL else float(wilcoxon(left).pvalue)


class Place(Protocol):
    """Where methods compete."""

    @property
    def task(self) -> str:
        """Several places may be of one task."""


AnyPlace = TypeVar("AnyPlace", bound=Place)


def scores_by_task(found: Mapping[tuple[AnyPlace, str], float], methods: Sequence[str]) -> dict[str, list[float]]:
    """Mean scores of methods by task, over the places that have one of each.

    Args:
        found: Scores by place and method.
        methods: In the order of the scores.

    Returns:
        {task: a score a method}, of the tasks with such a place.
    """
    by_task: dict[str, list[list[float]]] = {}
    for place in dict.fromkeys(place for place, _ in found):
        if all((place, method) in found for method in methods):
            by_task.setdefault(place.task, []).append([found[place, method] for method in methods])
    return {task: [mean(column) for column in zip(*rows, strict=True)] for task, rows in by_task.items()}


def average_ranks(scores: list[list[float]]) -> list[float]:
    """Mean rank of each method, 1 being the best; equal scores share the mean of their ranks.

    Args:
        scores: (tasks, methods), the higher the better.

    Returns:
        One rank a method, from 1 to their number.

    Examples:
        >>> average_ranks([[0.9, 0.8, 0.7], [0.6, 0.6, 0.5]])
        [1.25, 1.75, 3.0]
    """
    import numpy as np
    from scipy.stats import rankdata

    ranks: list[float] = rankdata(-np.asarray(scores), axis=1).mean(0).tolist()
    return ranks


def rank_tests(scores: list[list[float]]) -> tuple[float, list[list[float]]] | None:
    """Whether methods differ at all, and which: Friedman's test, then Wilcoxon's for each pair, with Holm's correction.

    Demsar (JMLR 2006) with Benavoli, Corani and Mangili's remedy (JMLR 2016): a pair is judged by its own scores.

    Args:
        scores: (tasks, methods).

    Returns:
        Friedman's p, and (methods, methods) corrected p values with 1 on the diagonal; None for fewer than three methods or
        too few tasks.
    """
    from scipy.stats import friedmanchisquare

    count = len(scores[0]) if scores else 0
    if count < 3 or smallest_p(len(scores)) >= LEVEL:
        return None
    columns = list(zip(*scores, strict=True))
    places = [(i, j) for i in range(count) for j in range(i)]
    found = holm([wilcoxon_over_tasks([a - b for a, b in zip(columns[i], columns[j], strict=True)]) for i, j in places])
    matrix = [[1.0] * count for _ in range(count)]
    for (i, j), p in zip(places, found, strict=True):
        matrix[i][j] = matrix[j][i] = 1.0 if p is None else p
    return float(friedmanchisquare(*columns).pvalue), matrix
