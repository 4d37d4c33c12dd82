"""A row of the board: what others need to know of a finished run, in one JSON file. It loads no torch."""

from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from rekindle.errors import UserError, number_of
from rekindle.records import DATA, Seed, Whole, read_environment, read_result, read_spec
from rekindle.spec import PLACES, RunSpec, Share
from rekindle.stored import FileFormat

OWN = ("model", "image_size", "per_class", "method", "direction", "seed")  # Options of a run that have a key of their own.


class Row(TypedDict):
    """One finished run.

    `val` and `test` are accuracies from 0 to 1. A run that chooses among settings has no `test`: it has not read that split.
    """

    run: str
    task: str
    network: str
    weights: str
    image_size: int | None
    per_class: int | None
    pictures: Whole
    classes: Whole
    method: str
    direction: str
    seed: Seed
    settings: dict[str, Any]
    val: NotRequired[Share]
    test: NotRequired[Share]
    probe: NotRequired[Share]
    seconds: float
    finished: str
    packages: dict[str, str]
    hardware: str
    by: str


ROW = FileFormat(1, Row, "take it away, or add its run again with rekindle board --add RUN")


def row_of(folder: Path, by: str = "") -> Row:
    """The row of a finished run.

    Args:
        folder: Of the run.
        by: Who contributes it.

    Returns:
        Settings, versions and accuracies, without pictures.

    Raises:
        UserError: If it is no finished run folder, or a fold of a cross-validation, which is one measurement with the others.
    """
    spec, result, environment = read_spec(folder), read_result(folder), read_environment(folder)
    if spec.fold is not None:
        raise UserError(f"{folder} is a fold of a cross-validation, and a board holds runs that stand alone; add runs without --folds.")
    counts = DATA.read(folder / "data.json")["files"]
    probe = (result.get("probe") or {}).get("test", {})
    row: dict[str, Any] = {
        "run": result["id"], "task": Path(spec.data).name, "network": result["model"], "weights": Path(spec.weights).name,
        "image_size": spec.image_size, "per_class": spec.per_class, "pictures": len(counts["train"]), "classes": len(result["classes"]),
        "method": result["method"], "direction": spec.direction, "seed": spec.seed, "settings": _settings(spec),
        **{split: result[split]["accuracy"] for split in ("val", "test") if split in result},
        **({"probe": probe["accuracy"]} if probe else {}),
        "seconds": result["timing"]["seconds"], "finished": result["timing"].get("finished", ""),
        "packages": environment.get("packages", {}), "hardware": _hardware(environment), "by": by,
    }  # fmt: skip
    return ROW.checked(folder / "result.json", row)


def add(folders: list[Path], board: Path, by: str = "") -> list[Path]:
    """Write the rows of runs, one file each; a run that is there already is written again.

    Args:
        folders: Run folders, or folders of such, as a study's.
        board: The folder of rows.
        by: Who contributes them.

    Returns:
        The files.

    Raises:
        UserError: If a folder holds no finished run; nothing is written then.
    """
    rows = [row_of(run, by) for folder in folders for run in _runs(folder)]
    board.mkdir(parents=True, exist_ok=True)
    written = []
    for row in rows:
        path = board / f"{row['task']}-{row['network'].rpartition(':')[2]}-{row['run']}.json"
        ROW.write(path, row)
        written.append(path)
    return written


def read_rows(board: Path) -> list[Row]:
    """All rows of a board, sorted by file name.

    Returns:
        Checked rows, at least one.

    Raises:
        UserError: If there is none, or one is not what a row is, naming the file and what is wrong.
    """
    if not board.is_dir():
        raise UserError(f"there is no folder {board}; make one with rekindle board {board} --add RUN")
    rows = [ROW.read(path) for path in sorted(board.rglob("*.json"))]
    if not rows:
        raise UserError(f"{board} holds no rows (files of JSON); add finished runs with rekindle board {board} --add RUN")
    return rows


def _runs(folder: Path) -> list[Path]:
    """The finished runs at a folder: itself, or those in it or in its `runs`."""
    if (folder / "spec.yaml").is_file():
        return [folder]
    found = [path.parent for place in (folder, folder / "runs") if place.is_dir() for path in sorted(place.glob("*/result.json"))]
    if not found:
        raise UserError(f"{folder} holds no finished run; name a run folder, or a folder of such as rekindle study run makes.")
    return found


def _settings(spec: RunSpec) -> dict[str, Any]:
    """What else was asked for, with what the machine chose where that is part of the run."""
    return {name: value for name, value in spec.chosen().items() if name not in (*OWN, *PLACES, "name", "test")}


def _hardware(environment: Any) -> str:
    gpu = environment.get("gpu", "none")
    return gpu if gpu != "none" else f"{number_of(environment.get('cores', 0), 'core')}, {environment.get('processor', 'unknown')}"
