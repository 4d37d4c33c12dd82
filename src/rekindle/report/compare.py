"""Finished runs side by side, with paired statistics: a difference is given with its interval, never as a bare verdict."""

from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rekindle.errors import UserError
from rekindle.records import read_predictions, read_spec
from rekindle.report.results import final_split
from rekindle.report.statistics import holm, mcnemar, paired_summary, wilson
from rekindle.run import Run

__all__ = ["Comparison", "compare", "paired_summary"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Rows of a comparison. All accuracies and differences are fractions from 0 to 1.

    Attributes:
        runs: A dict a run: run, id, method, model, data, seed, epochs, lr, val, test, seconds; and accuracy, count and 95 %
            interval on `split`, which is the test split, or validation where there is no test.
        methods: A dict for each group of runs that share all settings but the seed: method (and what else sets the group apart),
            seeds, mean, std (ddof 1; None for one run), and runs, their folders.
        pairs: A dict for each two groups measured on the same data: from, to, and `paired_summary` over the seeds they share, its
            interval as low and high, and p_holm, which is p corrected for the number of all pairs.
        pictures: For just two runs: `mcnemar` over the pictures that both classified, or None.
        notes: Sentences on what could not be compared, and why.
    """

    runs: list[Row]
    methods: list[Row]
    pairs: list[Row]
    pictures: Row | None
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Group:
    """Runs that share all settings but the seed."""

    name: str
    settings: Row
    rows: list[Row]

    @property
    def accuracies(self) -> list[float]:
        return [row["accuracy"] for row in self.rows]

    def summary(self) -> Row:
        spread = stdev(self.accuracies) if len(self.rows) > 1 else None
        return {
            "method": self.name, "seeds": len(self.rows), "mean": mean(self.accuracies), "std": spread,
            "runs": [row["run"] for row in self.rows],
        }  # fmt: skip


def compare(folders: list[Path]) -> Comparison:
    """Compare finished runs.

    Args:
        folders: Two run folders or more, or folders that hold them, whose unfinished runs are left out.

    Raises:
        UserError: If there are fewer than two different ones, or one is no run folder or has not finished.
    """
    notes: list[str] = []
    places = [place for folder in folders for place in _runs_at(Path(folder), notes)]
    if len({place.resolve() for place in places}) < max(2, len(places)):
        found = " ".join(map(str, places)) or "none"
        raise UserError(
            f"compare needs two or more different run folders, found {found}: rekindle compare RUN RUN, or the folder that they lie in"
        )
    runs = [Run(place) for place in places]
    settings = [{**read_spec(run.folder).to_dict(), "split": final_split(run.result)} for run in runs]
    rows = [_row(run) for run in runs]
    groups = _groups(settings, rows)
    pairs = _pairs(groups, notes)
    pictures = _pictures(runs[0], runs[1], notes) if len(runs) == 2 else None
    return Comparison(rows, [group.summary() for group in groups], pairs, pictures, notes)


def _runs_at(folder: Path, notes: list[str]) -> list[Path]:
    """The folder, or the finished runs that lie in it, by name; a note on the others."""
    if not folder.is_dir() or (folder / "spec.yaml").exists():
        return [folder]
    inside = sorted(spec.parent for spec in folder.glob("*/spec.yaml"))
    finished = [run for run in inside if (run / "result.json").exists()]
    if len(finished) < len(inside):
        notes.append(f"{len(inside) - len(finished)} of the {len(inside)} runs in {folder} have not finished and are left out.")
    return finished if inside else [folder]


def _row(run: Run) -> Row:
    result = run.result
    split = final_split(result)
    measured = result[split]
    return {
        "run": str(run.folder),
        **{key: result.get(key) for key in ("id", "method", "model", "data", "seed", "epochs", "lr")},
        **{name: result[name]["accuracy"] if name in result else None for name in ("val", "test")},
        "split": split,
        "accuracy": measured["accuracy"],
        "probe": ((result.get("probe") or {}).get(split) or {}).get("accuracy"),
        "count": measured["count"],
        "interval": wilson(measured["accuracy"], measured["count"]),
        "seconds": result["timing"]["seconds"],
    }


def _groups(settings: list[Row], rows: list[Row]) -> list[_Group]:
    """Groups in the order of their first runs, named by the method and by whatever else differs between groups."""
    varying = [key for key in settings[0] if key not in ("seed", "method") and len({str(setting[key]) for setting in settings}) > 1]
    found: dict[str, _Group] = {}
    for setting, row in zip(settings, rows, strict=True):
        name = ", ".join([setting["method"], *(f"{key}={setting[key]}" for key in varying)])
        found.setdefault(name, _Group(name, setting, [])).rows.append(row)
    return list(found.values())


def _pairs(groups: list[_Group], notes: list[str]) -> list[Row]:
    """Every two groups that can be paired; their p values are corrected together."""
    pairs = [pair for a, b in combinations(groups, 2) if (pair := _pair(a, b, notes))]
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    return pairs


def _pair(a: _Group, b: _Group, notes: list[str]) -> Row | None:
    """The paired difference over seeds, or None and a note that says why there is none."""
    by_seed_a, by_seed_b = ({row["seed"]: row["accuracy"] for row in group.rows} for group in (a, b))
    seeds = sorted(by_seed_a.keys() & by_seed_b.keys())
    if any(a.settings[key] != b.settings[key] for key in ("data", "split")):
        notes.append(f"{a.name} and {b.name} were measured on different data, so no difference is given.")
    elif len(by_seed_a) < len(a.rows) or len(by_seed_b) < len(b.rows):
        notes.append(f"{a.name} or {b.name} has several runs of one seed, so they cannot be paired.")
    elif not seeds:
        notes.append(f"{a.name} and {b.name} have no seed in common, so they cannot be paired.")
    else:
        found = paired_summary([by_seed_a[seed] for seed in seeds], [by_seed_b[seed] for seed in seeds])
        low, high = found.pop("interval") or (None, None)
        return {"from": a.name, "to": b.name, **found, "low": low, "high": high}
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
