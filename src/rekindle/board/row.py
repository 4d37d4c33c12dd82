"""A row of the board: what others need to know of a finished run, in one JSON file. It loads no torch."""

import ast
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from rekindle.errors import UserError, number_of, shown
from rekindle.fitting.folder_names import slug
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


class Unfitting(UserError):
    """A finished run that a board does not hold: a fold, which is one measurement with the others, or a soup, which has no method of its own."""


def row_of(folder: Path, by: str = "") -> Row:
    """The row of a finished run.

    Args:
        folder: Of the run.
        by: Who contributes it.

    Returns:
        Settings, versions and accuracies, without pictures.

    Raises:
        UserError: If it is no finished run folder.
        Unfitting: If it is one that a board does not hold.
    """
    spec, result, environment = read_spec(folder), read_result(folder), read_environment(folder)
    if spec.fold is not None:
        raise Unfitting(f"{folder} is a fold of a cross-validation, and a board holds runs that stand alone; add runs without --folds.")
    if "soup" in result:
        raise Unfitting(f"{folder} is a soup, and a board holds runs of one method; add the runs that it is the mean of.")
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


def add(folders: list[Path], board: Path, by: str = "", note: Callable[[str], object] = lambda text: None) -> list[Path]:
    """Write the rows of runs, one file each; a run that is there already is written again.

    Args:
        folders: Run folders, or folders of such, as a study's, of which folds and soups are passed over.
        board: The folder of rows.
        by: Who contributes them.
        note: Told what is passed over, and why.

    Returns:
        The files.

    Raises:
        UserError: If a folder holds no finished run; nothing is written then.
    """
    rows = [row for folder in folders for row in _rows(folder, by, note)]
    board.mkdir(parents=True, exist_ok=True)
    written = []
    for row in rows:
        path = board / f"{slug(row['task'].removeprefix('hf:'))}-{slug(row['network'].rpartition(':')[2])}-{row['run']}.json"
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
    rows = [_read(path) for path in sorted(board.rglob("*.json"))]
    if not rows:
        raise UserError(f"{board} holds no rows (files of JSON); add finished runs with rekindle board {board} --add RUN")
    return rows


def parts_of(recipe: str) -> list[str]:
    """The names of a recipe's parts, each once and without options.

    Returns:
        Names in the recipe's order.

    Raises:
        UserError: If it is no recipe.

    Examples:
        >>> parts_of("l2(alpha=0.01)+rifle(periods=4)")
        ['l2', 'rifle']
    """
    try:
        return list(dict.fromkeys(_names(ast.parse(recipe, mode="eval").body)))
    except (SyntaxError, TypeError, ValueError):
        raise UserError(f"its method {shown(recipe)} is no recipe") from None


def _names(node: ast.expr) -> list[str]:
    """Of the terms of a sum, in order."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _names(node.left) + _names(node.right)
    term = node.func if isinstance(node, ast.Call) else node
    if not isinstance(term, ast.Name):
        raise TypeError("no term of a recipe")
    return [term.id]


def _read(path: Path) -> Row:
    """One row, whose method is looked at too: somebody else may have written it."""
    row = ROW.read(path)
    with ROW.surprises(path):
        parts_of(row["method"])
    return row


def _rows(folder: Path, by: str, note: Callable[[str], object]) -> list[Row]:
    """Rows of a run, or of all in a folder that a board holds; what it does not hold is refused where nothing else is there."""
    rows, refused = [], []
    for run in _runs(folder):
        try:
            rows.append(row_of(run, by))
        except Unfitting as error:
            refused.append(error)
    if not rows:
        raise refused[0]
    for sentence in refused:
        note(f"passed over: {sentence}")
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
    """What else was asked for, with what the machine chose where that is part of the run; files are named without their folders."""
    chosen = {name: value for name, value in spec.chosen().items() if name not in (*OWN, *PLACES, "name", "test")}
    if spec.source_data:
        chosen["source_data"] = Path(spec.source_data).name
    if spec.exclude:
        chosen["exclude"] = _named_by_content(Path(spec.exclude))
    return chosen


def _named_by_content(file: Path) -> str:
    """A file's name, with some digits of its content where it still is there: every clean.csv has the same name."""
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:8]}" if file.is_file() else file.name


def _hardware(environment: Any) -> str:
    gpu = environment.get("gpu", "none")
    return gpu if gpu != "none" else f"{number_of(environment.get('cores', 0), 'core')}, {environment.get('processor', 'unknown')}"
