"""How a command's RUN is found: a folder, the beginning of its name or of a run's id, or `latest`. It loads no torch."""

from pathlib import Path

from rekindle.errors import Unreadable, UserError, some
from rekindle.records import LATEST, began_as

RUNS = "runs"  # Where fit puts its runs, and where they are looked for.
HELP = "run folder, or the beginning of its name or id, or latest"
WRITTEN = ("result.json", "metrics.jsonl", "spec.yaml")


def find_run(text: str, runs: str = RUNS, finished: bool = True) -> Path:
    """The folder of a run.

    Args:
        text: A folder; or, in `runs` or behind another folder's name, the beginning of a run's name or id, or "latest".
        runs: Where runs are looked for.
        finished: Whether the latest is to be a finished one.

    Returns:
        The path as it was typed where there is no such run; whoever opens it says so.

    Raises:
        UserError: If several runs begin so, or there is no run yet.
    """
    typed = Path(text)
    if typed.exists():
        return typed
    folder = Path(runs) if typed.parent == Path() else typed.parent
    found = sorted(entry for entry in folder.iterdir() if (entry / "spec.yaml").is_file()) if folder.is_dir() else []
    if typed.name == LATEST:
        return _latest(folder, [run for run in found if not finished or (run / "result.json").is_file()], finished)
    meant = [run for run in found if run.name.startswith(typed.name) or _id(run).startswith(typed.name)]
    if len(meant) > 1:
        raise UserError(f"{text} is the beginning of {some([run.name for run in meant])} in {folder}; type more of it.")
    return meant[0] if meant else typed


def _latest(folder: Path, runs: list[Path], finished: bool) -> Path:
    if not runs:
        raise UserError(f"there is no {'finished ' if finished else ''}run in {folder}; name a run folder that rekindle fit made.")
    return max(runs, key=_written)


def _written(run: Path) -> float:
    return max(path.stat().st_mtime for name in WRITTEN if (path := run / name).is_file())


def _id(run: Path) -> str:
    """A run's id; nothing where its folder is damaged, which is for whoever opens it to say."""
    try:
        return began_as(run)
    except Unreadable:
        return ""
