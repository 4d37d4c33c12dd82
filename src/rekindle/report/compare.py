"""Finished runs side by side, with paired statistics: a difference is given with its interval, never as a bare verdict.

The folds of one cross-validation are one row: the mean over the pictures that each held out.
"""

from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rekindle.errors import UserError, agree, number_of
from rekindle.records import read_folds, read_predictions
from rekindle.report.compare_rows import Row, rows_of
from rekindle.report.format import place_name
from rekindle.report.results import final_split
from rekindle.report.statistics import holm, mcnemar, paired_summary
from rekindle.run import Run
from rekindle.spec import AUTO

__all__ = ["Comparison", "compare", "paired_summary"]


@dataclass(frozen=True)
class Comparison:
    """Rows of a comparison. All accuracies and differences are fractions from 0 to 1.

    Attributes:
        runs: A dict a run or cross-validation; see `rows_of`.
        methods: A dict for each group of rows that share all settings but the seed: method (and what else sets the group apart),
            seeds, mean, std (ddof 1; None for one), and runs, the folders of all runs.
        pairs: A dict for each two groups measured on the same data: from, to, folds (0 for runs of their own), and `paired_summary`
            over the seeds (and folds) they share, its interval as low and high, and p_holm, which is p corrected for the number of
            all pairs.
        pictures: For just two runs, none of them a fold: `mcnemar` over the pictures that both classified, or None.
        notes: Sentences on what could not be compared, and why.
    """

    runs: list[Row]
    methods: list[Row]
    pairs: list[Row]
    pictures: Row | None
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON.

        Returns:
            Plain values.
        """
        return asdict(self)


@dataclass(frozen=True)
class _Group:
    """Rows that share all settings but the seed."""

    name: str
    settings: Row
    rows: list[Row]

    @property
    def accuracies(self) -> list[float]:
        return [row["accuracy"] for row in self.rows]

    @property
    def count(self) -> int:
        """Of runs."""
        return sum(len(row["folds"] or [0]) for row in self.rows)

    def summary(self) -> Row:
        spread = stdev(self.accuracies) if len(self.rows) > 1 else None
        return {
            "method": self.name, "seeds": len(self.rows), "mean": mean(self.accuracies), "std": spread,
            "runs": [run for row in self.rows for run in row["runs"]],
        }  # fmt: skip

    def measured(self) -> dict[tuple[int, int], float]:
        """Accuracies by seed and fold, which is 0 for a run of its own."""
        return {(row["seed"], fold): value for row in self.rows for fold, value in (row["folds"] or {0: row["accuracy"]}).items()}


def compare(folders: list[Path]) -> Comparison:
    """Compare finished runs.

    Args:
        folders: Two run folders or more, or folders that hold them, whose unfinished runs are left out.

    Returns:
        Rows of runs, the most accurate first, with paired statistics where runs share seeds.

    Raises:
        UserError: If there are fewer than two different ones, or one is no run folder or has not finished.
    """
    notes: list[str] = []
    places = [place for folder in folders for place in _runs_at(Path(folder), notes)]
    rows, settings = rows_of([Run(place) for place in places]) if len({place.resolve() for place in places}) == len(places) else ([], [])
    if len(rows) < 2:
        found = " ".join(map(str, folders)) or "none"
        raise UserError(
            f"compare needs two or more different runs (the folds of a cross-validation count as one), found {found}: "
            "rekindle compare RUN RUN, or the folder that they lie in"
        )
    groups = _groups(settings, rows)
    pairs = _pairs(groups, notes)
    pictures = None if len(rows) > 2 or any(row["folds"] for row in rows) else _pictures(Run(places[0]), Run(places[1]), notes)
    return Comparison(rows, [group.summary() for group in groups], pairs, pictures, notes)


def _runs_at(folder: Path, notes: list[str]) -> list[Path]:
    """The folder, the folds in it, or the finished runs and folds that lie in it, by name; a note on the others."""
    if read_folds(folder):
        return _folds_at(folder)
    if not folder.is_dir() or (folder / "spec.yaml").exists():
        return [folder]
    inside = sorted(spec.parent for spec in folder.glob("*/spec.yaml"))
    finished = [run for run in inside if _finished(run)]
    if len(finished) < len(inside):
        notes.append(
            f"{len(inside) - len(finished)} of {number_of(len(inside), 'run')} in {folder} {agree(len(inside) - len(finished), 'has')} not finished and {agree(len(inside) - len(finished), 'is')} left out."
        )
    return [place for run in finished for place in (_folds_at(run) if read_folds(run) else [run])] if inside else [folder]


def _finished(folder: Path) -> bool:
    """Whether a run, or a cross-validation with all its folds, is done."""
    return (folder / "result.json").exists() or "val" in (read_folds(folder) or {})


def _folds_at(folder: Path) -> list[Path]:
    """The runs of a cross-validation."""
    if not _finished(folder):
        raise UserError(f"{folder} has not finished; continue it with rekindle fit --resume {folder}")
    return sorted(spec.parent for spec in folder.glob("*/spec.yaml"))


def _groups(settings: list[Row], rows: list[Row]) -> list[_Group]:
    """Groups in the order of their first runs, named by the method and by whatever else differs between groups."""
    varying = [key for key in settings[0] if key not in ("seed", "method") and len({str(setting[key]) for setting in settings}) > 1]
    found: dict[str, _Group] = {}
    for setting, row in zip(settings, rows, strict=True):
        name = ", ".join([setting["method"], *(f"{key}={setting[key]}" for key in varying)])
        found.setdefault(name, _Group(name, setting, [])).rows.append(row)
    shorter = [_shorter(group.settings, varying) for group in found.values()]
    same = len(set(shorter)) < len(shorter)
    return [group if same else replace(group, name=name) for name, group in zip(shorter, found.values(), strict=True)]


def _shorter(setting: Row, varying: list[str]) -> str:
    """A group's name without what says nothing new: the way to the data, the split, values that leave the choice to rekindle."""
    words = [place_name(setting["data"])] if "data" in varying else []
    others = ((key, setting[key]) for key in varying if key not in ("data", "split"))
    words += [f"{key}={value}" for key, value in others if value != AUTO and (key, value) != ("folds", 0)]
    return ", ".join([setting["method"], *words])


def _pairs(groups: list[_Group], notes: list[str]) -> list[Row]:
    """Every two groups that can be paired; their p values are corrected together."""
    pairs = [pair for a, b in combinations(groups, 2) if (pair := _pair(a, b, notes))]
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    return pairs


def _pair(a: _Group, b: _Group, notes: list[str]) -> Row | None:
    """The paired difference over seeds, or None and a note that says why there is none."""
    left, right = a.measured(), b.measured()
    shared, folds = sorted(left.keys() & right.keys()), a.settings["folds"]
    if any(a.settings[key] != b.settings[key] for key in ("data", "split")):
        notes.append(f"{a.name} and {b.name} were measured on different data, so no difference is given.")
    elif folds != b.settings["folds"]:
        notes.append(f"{a.name} and {b.name} have not the same folds, so no difference is given.")
    elif len(left) < a.count or len(right) < b.count:
        notes.append(f"{a.name} or {b.name} has several runs of one seed, so they cannot be paired.")
    elif not shared:
        notes.append(f"{a.name} and {b.name} have no seed in common, so they cannot be paired.")
    else:
        found = paired_summary([left[key] for key in shared], [right[key] for key in shared], folds)
        low, high = found.pop("interval") or (None, None)
        return {"from": a.name, "to": b.name, "folds": folds, **found, "low": low, "high": high}
    return None


def _pictures(first: Run, second: Run, notes: list[str]) -> Row | None:
    """McNemar's test over the pictures that both runs classified; a note where those are not all."""
    a, b = _answers(first), _answers(second)
    common = len(a.keys() & b.keys())
    if common < max(len(a), len(b)):
        outcome = f"the figures are for the {common} they share" if common else "they share none, so the two cannot be paired"
        notes.append(f"{first.folder} ({len(a)}) and {second.folder} ({len(b)}) were measured on different pictures; {outcome}.")
    return mcnemar(a, b) if common else None


def _answers(run: Run) -> dict[tuple[str, str, str], bool]:
    """Whether each picture of the final split was classified correctly, by split, path and label."""
    rows = read_predictions(run.folder, final_split(run.result))
    return {(row["split"], row["path"], row["label"]): row["prediction"] == row["label"] for row in rows}
