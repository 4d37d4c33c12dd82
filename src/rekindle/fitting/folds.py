"""`--folds 5`: cross-validation. Training and validation pictures are divided into folds; each is held out by an ordinary run once.

So every picture is predicted by a network that has not seen it. A test split of the data is no part of the folds: each run measures on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rekindle.errors import Stopped, UserError
from rekindle.files import csv_text, read_csv, write_atomic
from rekindle.fitting.folder_names import check_empty, slug
from rekindle.records import FOLDS, FOLDS_FILE, folds_of, read_spec, write_spec
from rekindle.report.statistics import over_folds, wilson
from rekindle.run import Run
from rekindle.spec import RunSpec
from rekindle.training.listener import Listener


@dataclass(frozen=True)
class CrossValidation:
    """Finished folds.

    Attributes:
        folder: Holds folds.json, predictions.csv (each picture once, by a run that has not seen it), spec.yaml and the runs' folders.
        runs: One a fold, in their order.
    """

    folder: Path
    runs: list[Run]

    @cached_property
    def result(self) -> dict[str, Any]:
        """What folds.json holds: `runs`; `val` and, where there is a test split, `test`, each with mean, std and 95 % interval of the
        accuracy over the folds; `pictures`, with the accuracy over all that were held out."""
        return {**FOLDS.read(self.folder / FOLDS_FILE)}


def cross_validate(
    spec: RunSpec, folds: int, train: Callable[[RunSpec, Path, Path | None], Run], *, out: Path, name: str | None, resumed: Path | None,
    listener: Listener,
) -> CrossValidation:  # fmt: skip
    """Train every fold, or go on with those that are not done.

    Args:
        spec: The runs', but for the fold; each has its share of `minutes`.
        folds: From 2 to 100.
        train: Trains a spec in an output folder, or goes on with a run folder if one is given.
        out: Folder in which the folds' own folder is made.
        name: Of that folder; None makes one of data, seed, folds and id.
        resumed: That folder, to go on.
        listener: Told of progress.

    Returns:
        The finished folds.

    Raises:
        UserError: For bad input, in one sentence.
        Stopped: Naming the folds' folder.
    """
    if spec.fold:
        raise UserError(f"--folds {folds} trains every fold, and --fold {spec.fold} one of them; give one of them.")
    folder = resumed or out / (name or f"{slug(Path(spec.data).resolve().name)}-s{spec.seed}-{folds}folds-{spec.options_hash()}")
    if not resumed:
        _check_free(folder, spec, folds)
    if not (folder / FOLDS_FILE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_spec(folder, spec.located())
        FOLDS.write(folder / FOLDS_FILE, {"folds": folds})
    runs = []
    for number in range(1, folds + 1):
        fold = f"{number}/{folds}"
        listener.note(f"fold {number} of {folds}:")
        begun = _begun(folder, fold) if resumed else None
        mine = replace(spec, fold=fold, minutes=spec.minutes and spec.minutes / folds)
        try:
            runs.append(train(mine, folder, begun))
        except Stopped:
            raise Stopped(str(folder)) from None
        except UserError:
            _remove_unused(folder)
            raise
    _write_predictions(folder, runs)
    FOLDS.write(folder / FOLDS_FILE, {"folds": folds, **_summary(spec, runs)})
    return CrossValidation(folder, runs)


def _check_free(folder: Path, spec: RunSpec, folds: int) -> None:
    """Refuse a folder that holds something else than these folds."""
    begun = (folder / "spec.yaml").is_file() and not (folder / "environment.json").exists()
    if not (begun and read_spec(folder) == spec.located() and folds_of(folder) in (None, folds)):
        check_empty(folder, "these folds")


def _begun(folder: Path, fold: str) -> Path | None:
    """The one run of a fold that has begun: it goes on also where the data were moved, and with the network that it chose."""
    found = [path.parent for path in sorted(folder.glob("*/spec.yaml")) if read_spec(path.parent).fold == fold]
    return found[0] if len(found) == 1 else None


def _remove_unused(folder: Path) -> None:
    """Leave no folder behind in which no run has begun."""
    if {path.name for path in folder.iterdir()} <= {FOLDS_FILE, "spec.yaml"}:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _write_predictions(folder: Path, runs: list[Run]) -> None:
    """predictions.csv: those of each run for the pictures that it held out, with the fold before them."""
    rows: list[dict[str, str]] = []
    for number, run in enumerate(runs, 1):
        held = [row for row in read_csv(run.folder / "predictions.csv") if row["split"] == "val"]
        rows += [{"fold": str(number), **row} for row in held]
    write_atomic(folder / "predictions.csv", csv_text(list(rows[0]), [row.values() for row in rows]))


def _summary(spec: RunSpec, runs: list[Run]) -> dict[str, Any]:
    results = [run.result for run in runs]
    splits = {name: [result[name]["accuracy"] for result in results] for name in ("val", "test") if all(name in one for one in results)}
    confusion = [
        [sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*(one["val"]["confusion"] for one in results), strict=True)
    ]
    count = sum(map(sum, confusion))
    accuracy = sum(row[place] for place, row in enumerate(confusion)) / count
    grouped = spec.group_column or spec.group_pattern  # Pictures of a group are not independent, and an interval counts on that.
    return {
        "data": spec.data, "method": spec.method, "seed": spec.seed, "classes": results[0]["classes"],
        "runs": [
            {"fold": number, "run": run.folder.name, "model": one["model"], "epochs": one["epochs"],
             **{name: one[name]["accuracy"] for name in splits}, "count": one["val"]["count"]}
            for number, (run, one) in enumerate(zip(runs, results, strict=True), 1)
        ],
        **{name: over_folds(values) for name, values in splits.items()},
        "pictures": {"accuracy": accuracy, "count": count, "interval": None if grouped else wilson(accuracy, count), "confusion": confusion},
        "cautions": _cautions(spec),
    }  # fmt: skip


def _cautions(spec: RunSpec) -> list[str]:
    """What to know of options that choose by the pictures that are held out."""
    used = [name for name, there in (("--keep best", spec.keep == "best"), ("--patience", spec.patience)) if there]
    if not used:
        return []
    return [f"{' and '.join(used)} chose the epoch by the pictures that were held out, so accuracy on them is a little too high."]
