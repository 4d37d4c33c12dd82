"""The files of a task: given ones recognised and checked, the others downloaded, and hashes that nobody published recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekindle.data.tasks.download import Failed, digest, fetch
from rekindle.data.tasks.task import Task, TaskFile
from rekindle.errors import UserError, agree, number_of
from rekindle.locks import locked
from rekindle.stored import FileFormat

SEEN = "seen.json"
HASHES = FileFormat(2, dict[str, str], "remove it to forget the hashes of files without a published one")
MIB = 2**20


@dataclass(frozen=True)
class Obtained:
    """A file of a task: its official name, where it lies, where it came from, its size in bytes and SHA-256."""

    name: str
    path: Path
    origin: str
    size: int
    sha256: str


def take_all(given: Sequence[Path | str]) -> list[Obtained]:
    if not given:
        raise UserError("--repacked needs --from ARCHIVE.")
    paths = [_existing(Path(path)) for path in given]
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path} is a folder; with --repacked name the archives themselves.")
    return [_obtained(path.name, path, str(path)) for path in paths]


def obtain(task: Task, base: Path, given: list[Path], listener: Any, option: str) -> list[Obtained]:
    """All files of a task, given ones first checked, the others downloaded; what cannot be had is told at once.

    Returns:
        Path and hash of each of the task's files, in their order.
    """
    here = _match(task, given)
    seen = _seen(base)
    files, failures = [], []
    for source in task.sources:
        known = source.hash or seen.get(source.file, "")
        if source.file in here:
            files.append(_checked(here[source.file], known, source, base))
            continue
        progress = in_mib(listener, f"downloading {source.file}")
        try:
            path, url = fetch(source.file, source.urls, known, base / "downloads", progress, listener.note if listener else None)
            files.append(_obtained(source.file, path, url or str(path)))
        except Failed as failure:
            failures.append((source, known, failure.reasons))
    if failures:
        raise UserError(_by_hand(task, failures, option))
    return files


def _by_hand(task: Task, failures: list[tuple[TaskFile, str, list[str]]], option: str) -> str:
    """What could not be had, from where, its hash, and what to type once it is here."""
    lines = [f"{task.name} is not prepared: {len(failures)} of its {number_of(len(task.sources), 'file')} could not be downloaded."]
    for source, known, reasons in failures:
        lines.append(f"{source.file} ({known.replace(':', ' ') if known else 'no hash is known'}):")
        lines += [f"  {reason}" for reason in reasons]
    names = " ".join(source.file for source, _, _ in failures)
    lines.append(
        f"Get {agree(len(failures), 'it')} by other means (see {task.page}) and type: rekindle data prepare {task.name}{option} --from {names}"
    )
    return "\n".join(lines)


def _match(task: Task, given: list[Path]) -> dict[str, Path]:
    """{file of the task: given path}, by name, by hash, or because only one is left."""
    wanted = {source.file: source for source in task.sources}
    here: dict[str, Path] = {}
    strangers = []
    for path in [inner for outer in given for inner in _inside(_existing(outer), wanted)]:
        if path.name in wanted:
            here[path.name] = path
        else:
            strangers.append(path)
    for path in strangers:
        found = [
            name for name, source in wanted.items() if name not in here and source.hash and _hash_like(path, source.hash) == source.hash
        ]
        found = found or (list(wanted) if len(wanted) == 1 and not here else [])
        if not found:
            raise UserError(f"{path} is none of the files of {task.name}, by name or by hash; they are {', '.join(wanted)}.")
        here[found[0]] = path
    return here


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"--from {path} does not exist; name the archive, or the folder that holds it.")
    return path


def _inside(path: Path, wanted: dict[str, TaskFile]) -> list[Path]:
    """The file itself, or the wanted ones in a folder."""
    if not path.is_dir():
        return [path]
    found = [path / name for name in wanted if (path / name).is_file()]
    if not found:
        raise UserError(f"{path} holds none of the files {', '.join(wanted)}.")
    return found


def _hash_like(path: Path, known: str) -> str:
    algorithm = known.split(":")[0]
    return f"{algorithm}:{digest(path, algorithm)}"


def _checked(path: Path, known: str, source: TaskFile, base: Path) -> Obtained:
    found = _hash_like(path, known) if known else ""
    if found != known:
        whose = "the published one" if source.hash else f"the one recorded in {base / SEEN}"
        raise UserError(
            f"{path} is cut or another file: its {found.replace(':', ' ')} is not {whose}, {known.split(':')[1]}; "
            "get it again, or add --repacked if it holds the whole task packed anew."
        )
    return _obtained(source.file, path, str(path))


def _obtained(name: str, path: Path, origin: str) -> Obtained:
    return Obtained(name, path, origin, path.stat().st_size, digest(path))


def _seen(base: Path) -> dict[str, str]:
    """{file: "sha256:..."} of files without a published hash, as first seen."""
    path = base / SEEN
    return HASHES.read(path) if path.exists() else {}


def remember(task: Task, files: list[Obtained], base: Path) -> None:
    """Record the hashes of files that have no published one, now that the official counts vouch for them."""
    new = {source.file: f"sha256:{file.sha256}" for source, file in zip(task.sources, files, strict=True) if not source.hash}
    if new:
        with locked(base / f".{SEEN}.lock", waiting=""):
            HASHES.write(base / SEEN, {**_seen(base), **new})


def in_mib(listener: Any, what: str) -> Any:
    """A progress function of bytes for a listener that counts whole things; it is told of each MiB once.

    Returns:
        A function of (bytes done, bytes in all), or None without a listener.
    """
    if listener is None:
        return None
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        step = -(-done // MIB)
        if step != last:
            last = step
            listener.progress(f"{what} (MiB)", step, -(-total // MIB) if total else step + 1)

    return progress
