"""A prepared task against its record and the official numbers."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rekindle.data.tasks import find
from rekindle.data.tasks.download import digest
from rekindle.data.tasks.prepared import RECORD, SUMS, counted, place, record
from rekindle.errors import UserError, agree, number_of


def verify(name: str, *, root: Path | str | None = None, listener: Any = None) -> dict[str, Any]:
    """Check a prepared task against its record and the official numbers.

    Returns:
        Its name, folder and counts.

    Raises:
        UserError: If it is not prepared, or naming what is missing or changed.
    """
    task, folder = find(name), place(name, root)
    found = record(folder)
    again = f"remove {folder} and type: rekindle data prepare {name}"
    listed = {path for samples in found["splits"].values() for path, _ in samples}
    counts = {split: len(samples) for split, samples in found["splits"].items()}
    if len(found["classes"]) != task.classes or counts != task.counts or found["counts"] != task.counts:
        raise UserError(f"{folder / RECORD} lists {counted(counts)}, officially there are {counted(task.counts)}; {again}")
    sums = folder / SUMS
    text = sums.read_text("utf-8") if sums.is_file() else ""
    if hashlib.sha256(text.encode()).hexdigest() != found.get("sums"):
        raise UserError(f"{sums} is missing or changed since {name} was prepared; {again}")
    recorded = {path: value for value, path in (line.split("  ", 1) for line in text.splitlines())}
    if recorded.keys() != listed:
        raise UserError(f"{folder / RECORD} and {SUMS} list different pictures; {again}")
    wrong = _changed(folder, recorded, listener)
    if wrong:
        raise UserError(
            "\n".join(
                [
                    f"{name}: {len(wrong)} of {number_of(len(recorded), 'picture')} {agree(len(wrong), 'is')} missing or changed; {again}",
                    *wrong[:50],
                ]
            )
        )
    return {"name": name, "folder": str(folder), "counts": counts, "pictures": len(recorded)}


def _changed(folder: Path, recorded: dict[str, str], listener: Any) -> list[str]:
    def judge(name: str) -> str:
        path = folder / name
        if not path.is_file():
            return f"  {path}: missing"
        return "" if digest(path) == recorded[name] else f"  {path}: changed"

    wrong = []
    with ThreadPoolExecutor() as pool:
        for count, problem in enumerate(pool.map(judge, recorded), 1):
            wrong += [problem] if problem else []
            if listener is not None:
                listener.progress("checking pictures", count, len(recorded))
    return wrong
