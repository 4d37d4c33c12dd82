"""Tables 1 and 2 of the RIFLE paper (Li et al., ICML 2020), to stand beside a study's own numbers."""

import csv
from functools import cache
from importlib.resources import files
from statistics import mean
from typing import Any

from rekindle.study.report.numbers import StudyNumbers

Key = tuple[str, str, str]


@cache
def published() -> dict[Key, tuple[float, float]]:
    """{(regulariser, data set, method): (mean, standard deviation)} in per cent, over five runs of ResNet-50.

    RIFLE stands in both tables with the same numbers. No split was kept for selection there: settings were chosen on the test set.

    Returns:
        (mean, standard deviation) in percent by (regulariser, data set, method).
    """
    text = files("rekindle").joinpath("assets", "published.csv").read_text("utf-8")
    return {
        (row["regularizer"], row["dataset"], row["method"]): (float(row["mean"]), float(row["std"]))
        for row in csv.DictReader(text.splitlines())
    }


def beside(numbers: StudyNumbers) -> list[dict[str, Any]]:
    """A row for each published number of a task and method that the study has: regularizer, task, size, method, mean, std, difference
    (from the published Original), and ours as `entry`.

    Returns:
        One mapping a number.
    """
    baseline = _method(numbers, numbers.baseline)
    rows = []
    for entry in numbers.entries:
        names = numbers.study.grid.published["tasks"]
        place = entry.setting.regularizer, names.get(entry.setting.task, entry.setting.task), _method(numbers, entry.method)
        if place in published():
            base = published().get((place[0], place[1], baseline))
            figures = published()[place]
            rows.append({"entry": entry, "mean": figures[0], "std": figures[1], "difference": figures[0] - base[0] if base else None})
    return rows


def differences(numbers: StudyNumbers) -> list[dict[str, Any]]:
    """For each regulariser and method: the published differences from Original over the paper's nine tasks, and ours over our tasks.

    Returns:
        regularizer, method, published (mean), low and high (range), tasks, ours (mean or None), our_tasks; all in points.
    """
    baseline = _method(numbers, numbers.baseline)
    rows = []
    for overall in numbers.overall:
        ours = {row["method"]: row for row in overall.rows}
        for method in numbers.methods:
            name = _method(numbers, method)
            values = [
                figures[0] - published()[regularizer, task, baseline][0] for (regularizer, task, other), figures in published().items()
                if (regularizer, other) == (overall.regularizer, name) and (regularizer, task, baseline) in published()
            ]  # fmt: skip
            if not values or method == numbers.baseline:
                continue
            own = ours.get(method)
            rows.append({
                "regularizer": overall.regularizer, "method": method, "published": mean(values), "low": min(values), "high": max(values),
                "tasks": len(values), "ours": 100 * own["difference"] if own else None, "our_tasks": own["tasks"] if own else 0,
            })  # fmt: skip
    return rows


def _method(numbers: StudyNumbers, method: str) -> str:
    return numbers.study.grid.published["methods"].get(method, method)
