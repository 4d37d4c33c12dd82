"""Finished runs side by side, with paired statistics: a difference is given with its interval, never as a bare verdict."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rekindle.errors import UserError
from rekindle.report.run_report import final_split
from rekindle.run_folder import Run


@dataclass(frozen=True)
class Comparison:
    """Rows of a comparison, methods with their seeds, and what the pictures say of two runs.

    Attributes:
        runs: A dict a run.
        methods: A dict a method: mean and standard deviation over seeds.
        pairs: A dict for each pair of methods: paired difference over seeds.
        pictures: For just two runs on the same pictures: agreement and McNemar's test, or None.
    """

    runs: list[dict[str, Any]]
    methods: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    pictures: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"runs": self.runs, "methods": self.methods, "pairs": self.pairs, "pictures": self.pictures}


def compare(folders: list[Path]) -> Comparison:
    """Compare finished runs.

    Raises:
        UserError: If there are fewer than two, or one has not finished.
    """
    if len(folders) < 2:
        raise UserError(f"compare needs at least two runs, found {len(folders)}: rekindle compare RUN RUN")
    runs = [Run(folder) for folder in folders]
    rows = [_row(run) for run in runs]
    by_method: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        by_method[row["method"]][row["seed"]] = row["accuracy"]
    methods = [{"method": name, "seeds": len(v), "mean": mean(v.values()), "std": stdev(v.values()) if len(v) > 1 else None} for name, v in by_method.items()]
    names = list(by_method)
    pairs = [_pair(a, b, by_method) for i, a in enumerate(names) for b in names[i + 1 :]]
    return Comparison(rows, methods, pairs, _pictures(runs) if len(runs) == 2 else None)


def paired(first: list[float], second: list[float]) -> dict[str, Any]:
    """Mean of second - first over pairs, its 95 % t interval and two-sided p (None for fewer than two pairs)."""
    from scipy import stats

    differences = [b - a for a, b in zip(first, second, strict=True)]
    found: dict[str, Any] = {"n": len(differences), "difference": mean(differences), "low": None, "high": None, "p": None}
    if len(differences) > 1 and len(set(differences)) > 1:
        test = stats.ttest_1samp(differences, 0.0)
        interval = test.confidence_interval(0.95)
        found |= {"low": float(interval.low), "high": float(interval.high), "p": float(test.pvalue)}
    return found


def _pair(a: str, b: str, by_method: dict[str, dict[int, float]]) -> dict[str, Any]:
    seeds = sorted(by_method[a].keys() & by_method[b].keys())
    if not seeds:
        return {"from": a, "to": b, "n": 0, "difference": None, "low": None, "high": None, "p": None}
    return {"from": a, "to": b, **paired([by_method[a][s] for s in seeds], [by_method[b][s] for s in seeds])}


def _row(run: Run) -> dict[str, Any]:
    result = run.result
    split = final_split(result)
    keys = ("id", "method", "model", "data", "seed", "epochs", "lr")
    return {"run": str(run.folder), **{key: result[key] for key in keys}, "split": split, "accuracy": result[split]["accuracy"],
            "count": result[split]["count"], "seconds": result["timing"]["seconds"]}  # fmt: skip


def _pictures(runs: list[Run]) -> dict[str, Any] | None:
    """Agreement on pictures that both runs evaluated, with McNemar's exact test."""
    from scipy.stats import binomtest

    first, second = (_answers(run) for run in runs)
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    only_first = sum(first[key] and not second[key] for key in common)
    only_second = sum(second[key] and not first[key] for key in common)
    both = sum(first[key] and second[key] for key in common)
    apart = only_first + only_second
    return {
        "count": len(common), "of_first": len(first), "of_second": len(second), "both_right": both, "both_wrong": len(common) - both - apart,
        "only_first_right": only_first, "only_second_right": only_second, "difference": (only_second - only_first) / len(common),
        "p": float(binomtest(only_first, apart).pvalue) if apart else 1.0,
    }  # fmt: skip


def _answers(run: Run) -> dict[str, bool]:
    split = final_split(run.result)
    with open(run.folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return {f"{row['path']}\x1f{row['label']}": row["correct"] == "1" for row in csv.DictReader(file) if row["split"] == split}
