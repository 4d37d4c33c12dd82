"""From archives to a prepared task: obtained, unpacked, read, counted against the official numbers, and moved into place at once."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekindle.checkpoints import write_atomic, write_json
from rekindle.data.archives import extract, is_archive, room
from rekindle.data.download import Failed, digest, fetch, only_one
from rekindle.data.home import home
from rekindle.data.tasks import find
from rekindle.data.tasks.prepared import PICTURES, RECORD, SUMS, is_prepared, place, record
from rekindle.data.tasks.task import Layout, Source, Task
from rekindle.errors import UserError

SEEN = "seen.json"
MIB = 2**20


@dataclass(frozen=True)
class Obtained:
    """A file of a task: its official name, where it lies, where it came from, its size in bytes and SHA-256."""

    name: str
    path: Path
    origin: str
    size: int
    sha256: str


def prepare(name: str, given: Sequence[Path | str] = (), *, root: Path | str | None = None, repacked: bool = False, listener: Any = None) -> Path:
    """Prepare a benchmark task and return its folder; one that is prepared is left as it is.

    Args:
        name: See `rekindle.data.tasks.TASKS`.
        given: Files of the task that are here already, or folders that hold them; the others are downloaded.
        root: Where data is kept; None takes $REKINDLE_HOME, or ~/.cache/rekindle.
        repacked: `given` are all of the task, packed anew: hashes are not compared, the official lists and counts still are.
        listener: Has `note(text)` and `progress(what, done, total)`.

    Raises:
        UserError: Saying what is wrong and what to type; nothing partial is left.
    """
    task, base, folder = find(name), home(root), place(name, root)
    note = listener.note if listener is not None else None
    with room(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with only_one(folder.with_name(f".{name}.lock"), f"another process is preparing {name}; waiting for it.", note):
        if is_prepared(folder):
            return folder
        if folder.exists():
            raise UserError(f"{folder} is in the way: it holds no {RECORD}, so it is no prepared task; move it, and start again.")
        files = _take_all(given) if repacked else _obtain(task, base, [Path(path) for path in given], listener, "" if root is None else f" --root {base}")
        with _workshop(folder) as work:
            with _doubting(task, files, base):
                raw = _unpack(files, work, listener)
                layout = task.read(raw)
                _check(task, layout, raw)
            if not repacked:
                _remember(task, files, base)
            _assemble(task, layout, raw, files, work / "done", listener)
            os.replace(work / "done", folder)
    return folder


@contextmanager
def _workshop(folder: Path) -> Iterator[Path]:
    """A folder for what is half done; a killed process leaves one, and the next clears it."""
    work = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with room(folder):
            work.mkdir()
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _doubting(task: Task, files: list[Obtained], base: Path) -> Iterator[None]:
    """Forget downloads that no hash vouched for when they prove wrong, so that the next try fetches them again."""
    try:
        yield
    except UserError:
        vouched = {source.file for source in task.sources if source.hash}
        for file in files:
            if file.path.parent == base / "downloads" and file.name not in vouched:
                file.path.unlink(missing_ok=True)
        raise


def _take_all(given: Sequence[Path | str]) -> list[Obtained]:
    if not given:
        raise UserError("--repacked needs --from ARCHIVE.")
    paths = [_existing(Path(path)) for path in given]
    for path in paths:
        if path.is_dir():
            raise UserError(f"{path} is a folder; with --repacked name the archives themselves.")
    return [_obtained(path.name, path, str(path)) for path in paths]


def _obtain(task: Task, base: Path, given: list[Path], listener: Any, option: str) -> list[Obtained]:
    """All files of a task, given ones first checked, the others downloaded; what cannot be had is told at once."""
    here = _match(task, given)
    seen = _seen(base)
    files, failures = [], []
    for source in task.sources:
        known = source.hash or seen.get(source.file, "")
        if source.file in here:
            files.append(_checked(here[source.file], known, source, base))
            continue
        progress = _in_mib(listener, f"downloading {source.file}")
        try:
            path, url = fetch(source.file, source.urls, known, base / "downloads", progress, listener.note if listener else None)
            files.append(_obtained(source.file, path, url or str(path)))
        except Failed as failure:
            failures.append((source, known, failure.reasons))
    if failures:
        raise UserError(_by_hand(task, failures, option))
    return files


def _by_hand(task: Task, failures: list[tuple[Source, str, list[str]]], option: str) -> str:
    """What could not be had, from where, its hash, and what to type once it is here."""
    lines = [f"{task.name} is not prepared: {len(failures)} of its {len(task.sources)} files could not be downloaded."]
    for source, known, reasons in failures:
        lines.append(f"{source.file} ({known.replace(':', ' ') if known else 'no hash is known'}):")
        lines += [f"  {reason}" for reason in reasons]
    names = " ".join(source.file for source, _, _ in failures)
    what = "it" if len(failures) == 1 else "them"
    lines.append(f"Get {what} by other means (see {task.page}) and type: rekindle data prepare {task.name}{option} --from {names}")
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
        found = [name for name, source in wanted.items() if name not in here and source.hash and _hash_like(path, source.hash) == source.hash]
        found = found or (list(wanted) if len(wanted) == 1 and not here else [])
        if not found:
            raise UserError(f"{path} is none of the files of {task.name}, by name or by hash; they are {', '.join(wanted)}.")
        here[found[0]] = path
    return here


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"--from {path} does not exist; name the archive, or the folder that holds it.")
    return path


def _inside(path: Path, wanted: dict[str, Source]) -> list[Path]:
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


def _checked(path: Path, known: str, source: Source, base: Path) -> Obtained:
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


def _unpack(files: list[Obtained], work: Path, listener: Any) -> Path:
    """Each archive into a folder of its own, other files beside them."""
    raw = work / "raw"
    raw.mkdir()
    for number, file in enumerate(files):
        into = raw / f"{number}"
        if is_archive(file.name):
            extract(file.path, into, _in_mib(listener, f"unpacking {file.name}"))
        else:
            into.mkdir()
            shutil.copyfile(file.path, into / file.name)
    return raw


def _check(task: Task, layout: Layout, raw: Path) -> None:
    """The official numbers, and that each listed picture is there once."""
    found = {split: len(samples) for split, samples in layout.splits.items()}
    if len(layout.classes) != task.classes or found != task.counts:
        raise UserError(
            f"{task.name} has officially {task.classes} classes and {_counted(task.counts)}, but the archives hold "
            f"{len(layout.classes)} and {_counted(found)}; they are cut or not the official ones."
        )
    paths = [path for samples in layout.splits.values() for path, _ in samples]
    missing = [path for path in paths if not path.is_file() or path.is_symlink()]
    if missing:
        raise UserError(f"{task.name}: {len(missing)} listed pictures are not in the archives, such as {missing[0].relative_to(raw)}; they are cut or not the official ones.")
    if len(set(paths)) < len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise UserError(f"{task.name}: {twice.relative_to(raw)} is listed twice; the archives are not the official ones.")
    unseen = sorted(set(range(task.classes)) - {label for _, label in layout.splits["train"]})
    if unseen:
        raise UserError(f"{task.name}: class {layout.classes[unseen[0]]} has no training picture; the archives are not the official ones.")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())


def _assemble(task: Task, layout: Layout, raw: Path, files: list[Obtained], done: Path, listener: Any) -> None:
    """Move the pictures of the splits into place, hash each, and write the record last."""
    targets = _targets(layout, raw)
    for path, name in targets.items():
        (done / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, done / name)
    names = sorted(targets.values())
    with ThreadPoolExecutor() as pool:
        hashes = []
        for count, value in enumerate(pool.map(lambda name: digest(done / name), names), 1):
            hashes.append(value)
            if listener is not None:
                listener.progress("hashing pictures", count, len(names))
    # The form of sha256sum, so that `sha256sum --check` reads it too.
    sums = "".join(f"{value}  {name}\n" for value, name in zip(hashes, names, strict=True))
    write_atomic(done / SUMS, sums)
    write_json(done / RECORD, {
        "name": task.name, "title": task.title, "paper": task.paper, "page": task.page, "licence": task.licence, "split": task.split,
        "classes": layout.classes, "counts": {split: len(samples) for split, samples in layout.splits.items()},
        "sources": [{"file": file.name, "sha256": file.sha256, "bytes": file.size, "from": file.origin} for file in files],
        "sums": hashlib.sha256(sums.encode()).hexdigest(),
        "splits": {split: [[targets[path], label] for path, label in samples] for split, samples in layout.splits.items()},
    })  # fmt: skip


def _targets(layout: Layout, raw: Path) -> dict[Path, str]:
    """{picture: its name in the prepared folder}, less the folders that all of them share."""
    inside = {path: Path(*path.relative_to(raw).parts[1:]) for samples in layout.splits.values() for path, _ in samples}
    if len(set(inside.values())) < len(inside):
        raise UserError(f"two archives hold pictures of the same name, such as {Counter(inside.values()).most_common(1)[0][0]}; they are not the official ones.")
    shared = os.path.commonpath([str(name.parent) for name in inside.values()])
    return {path: (Path(PICTURES) / name.relative_to(shared or ".")).as_posix() for path, name in inside.items()}


def _seen(base: Path) -> dict[str, str]:
    """{file: "sha256:..."} of files without a published hash, as first seen."""
    path = base / SEEN
    if not path.is_file():
        return {}
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, AttributeError):
        raise UserError(f"{path} is damaged; remove it to forget the hashes of files without a published one.") from None


def _remember(task: Task, files: list[Obtained], base: Path) -> None:
    """Record the hashes of files that have no published one, now that the official counts vouch for them."""
    new = {source.file: f"sha256:{file.sha256}" for source, file in zip(task.sources, files, strict=True) if not source.hash}
    if new:
        with only_one(base / f".{SEEN}.lock", ""):
            write_json(base / SEEN, {**_seen(base), **new})


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
        raise UserError(f"{folder / RECORD} lists {_counted(counts)}, officially there are {_counted(task.counts)}; {again}")
    sums = folder / SUMS
    text = sums.read_text("utf-8") if sums.is_file() else ""
    if hashlib.sha256(text.encode()).hexdigest() != found.get("sums"):
        raise UserError(f"{sums} is missing or changed since {name} was prepared; {again}")
    recorded = {path: value for value, path in (line.split("  ", 1) for line in text.splitlines())}
    if recorded.keys() != listed:
        raise UserError(f"{folder / RECORD} and {SUMS} list different pictures; {again}")
    wrong = _changed(folder, recorded, listener)
    if wrong:
        raise UserError("\n".join([f"{name}: {len(wrong)} of {len(recorded)} pictures are missing or changed; {again}", *wrong[:50]]))
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


def _in_mib(listener: Any, what: str) -> Any:
    """A progress function of bytes for a listener that counts whole things; it is told of each MiB once."""
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
