"""The rows of a comparison: a run each, and one for the folds of a cross-validation."""

from dataclasses import replace
from statistics import mean
from typing import Any

from rekindle.records import read_folds, read_spec
from rekindle.report.results import final_split
from rekindle.report.statistics import over_folds, wilson
from rekindle.run import Run

Row = dict[str, Any]
HELD_OUT = "val"  # What a cross-validation is measured on: each picture once, by a run that has not seen it.


def rows_of(runs: list[Run]) -> tuple[list[Row], list[Row]]:
    """Rows and, for each, the settings that it must share with others to be their repetition.

    Args:
        runs: Finished ones, folds among them.

    Returns:
        Rows hold run (a folder), runs (of all that it stands for), id, method, model, data, seed, epochs, lr, val, test, seconds; split,
        which is the test split, or validation where there is no test or for folds; accuracy, count, 95 % interval and the linear
        probe's accuracy there; and folds, the accuracy of each by its number, or None.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_cross_validation(run), []).append(run)
    rows, settings = [], []
    for members in groups.values():
        row = _folds_row(members) if len(members) > 1 else _row(members[0])
        spec = read_spec(members[0].folder)
        rows.append(row)
        shared = replace(spec, fold=None) if row["folds"] else spec
        # A soup has the settings of its best run, and is no repetition of it.
        own = {"method": row["method"]} if "soup" in members[0].result else {}
        settings.append({**shared.to_dict(), **own, "folds": _place(members[0])[1] if row["folds"] else 0, "split": row["split"]})
    return rows, settings


def _cross_validation(run: Run) -> str:
    """What the folds of one cross-validation have in common, and no other run has."""
    spec = read_spec(run.folder)
    if not spec.fold:
        return str(run.folder)
    home = run.folder.parent
    if read_folds(home):  # Folds of one command may have chosen different networks.
        return str(home)
    return str({**spec.to_dict(), "fold": spec.fold.partition("/")[2]})


def _place(run: Run) -> tuple[int, int]:
    """The number of a fold, and by how many the pictures were divided."""
    number, _, folds = (read_spec(run.folder).fold or "").partition("/")
    return int(number), int(folds)


def _row(run: Run) -> Row:
    result = run.result
    split = final_split(result)
    measured = result[split]
    return {
        "run": str(run.folder), "runs": [str(run.folder)], "folds": None,
        **{key: result.get(key) for key in ("id", "method", "model", "data", "seed", "epochs", "lr")},
        **{name: result[name]["accuracy"] if name in result else None for name in ("val", "test")},
        "split": split,
        "accuracy": measured["accuracy"],
        "probe": _probe(result, split),
        "count": measured["count"],
        "interval": wilson(measured["accuracy"], measured["count"]),
        "seconds": result["timing"]["seconds"],
    }  # fmt: skip


def _folds_row(runs: list[Run]) -> Row:
    """Means over folds; of a setting that each chose for itself, all that were chosen."""
    results = [run.result for run in runs]
    home = runs[0].folder.parent
    folds = {_place(run)[0]: run.result[HELD_OUT]["accuracy"] for run in runs}
    found = over_folds(list(folds.values()))
    probes = [_probe(result, HELD_OUT) for result in results]
    return {
        "run": str(home if read_folds(home) else runs[0].folder), "runs": [str(run.folder) for run in runs], "folds": folds, "id": "",
        **{key: _shared([result.get(key) for result in results]) for key in ("method", "model", "data", "seed", "epochs", "lr")},
        **{name: _mean([result[name]["accuracy"] if name in result else None for result in results]) for name in ("val", "test")},
        "split": HELD_OUT,
        "accuracy": found["mean"],
        "probe": _mean(probes),
        "count": sum(result[HELD_OUT]["count"] for result in results),
        "interval": found["interval"],
        "seconds": sum(result["timing"]["seconds"] for result in results),
    }  # fmt: skip


def _probe(result: dict[str, Any], split: str) -> float | None:
    return ((result.get("probe") or {}).get(split) or {}).get("accuracy")


def _shared(values: list[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else ", ".join(dict.fromkeys(map(str, values)))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None
