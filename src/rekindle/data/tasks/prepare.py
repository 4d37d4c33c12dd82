"""From archives to a prepared task: unpacked, read, counted against the official numbers, and moved into place at once."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rekindle.data.cache.cache_dir import home
from rekindle.data.tasks import find
from rekindle.data.tasks.archives import FULL, extract, is_archive, room
from rekindle.data.tasks.download import digest
from rekindle.data.tasks.fetch import Obtained, in_mib, obtain, remember, take_all
from rekindle.data.tasks.prepared import PICTURES, RECORD, SUMS, TASK, counted, is_prepared, place
from rekindle.data.tasks.task import Layout, Task
from rekindle.errors import UserError, number_of
from rekindle.files import write_atomic
from rekindle.locks import locked


def prepare(
    name: str, given: Sequence[Path | str] = (), *, root: Path | str | None = None, repacked: bool = False, listener: Any = None
) -> Path:
    """Prepare a benchmark task and return its folder; one that is prepared is left as it is.

    Args:
        name: See `rekindle.data.tasks.TASKS`.
        given: Files of the task that are here already, or folders that hold them; the others are downloaded.
        root: Where data is kept; None takes $REKINDLE_HOME, or ~/.cache/rekindle.
        repacked: `given` are all of the task, packed anew: hashes are not compared, the official lists and counts still are.
        listener: Has `note(text)` and `progress(what, done, total)`.

    Returns:
        The folder of the prepared task, which `open_data` takes by the task's name.

    Raises:
        UserError: Saying what is wrong and what to type; nothing partial is left.
    """
    task, base, folder = find(name), home(root), place(name, root)
    note = listener.note if listener is not None else None
    with room(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{name}.lock"), waiting=f"another process is preparing {name}; waiting for it.", note=note):
        if is_prepared(folder):
            return folder
        if folder.exists():
            raise UserError(f"{folder} is in the way: it holds no {RECORD}, so it is no prepared task; move it, and start again.")
        files = (
            take_all(given)
            if repacked
            else obtain(task, base, [Path(path) for path in given], listener, "" if root is None else f" --root {base}")
        )
        with _workshop(folder) as work:
            with _doubting(task, files, base):
                raw = _unpack(files, work, listener)
                layout = _read(task, raw)
                _check(task, layout, raw)
            if not repacked:
                remember(task, files, base)
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


def _unpack(files: list[Obtained], work: Path, listener: Any) -> Path:
    """Each archive into a folder of its own, other files beside them."""
    raw = work / "raw"
    raw.mkdir()
    for number, file in enumerate(files):
        into = raw / f"{number}"
        if is_archive(file.name):
            extract(file.path, into, in_mib(listener, f"unpacking {file.name}"))
        else:
            into.mkdir()
            shutil.copyfile(file.path, into / file.name)
    return raw


def _read(task: Task, raw: Path) -> Layout:
    """What the reader finds; an odd archive makes it stumble over anything."""
    try:
        return task.read(raw)
    except UserError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        raise UserError(
            f"{task.name}: the archives are not in the official layout ({type(error).__name__}: {error}); "
            "they are cut or not the official ones."
        ) from error


def _check(task: Task, layout: Layout, raw: Path) -> None:
    """The official numbers, and that each listed picture is there once."""
    found = {split: len(samples) for split, samples in layout.splits.items()}
    if len(layout.classes) != task.classes or found != task.counts:
        raise UserError(
            f"{task.name} has officially {number_of(task.classes, 'class')} and {counted(task.counts)}, but the archives hold "
            f"{len(layout.classes)} and {counted(found)}; they are cut or not the official ones."
        )
    paths = [path for samples in layout.splits.values() for path, _ in samples]
    missing = [path for path in paths if not path.is_file() or path.is_symlink()]
    if missing:
        raise UserError(
            f"{task.name}: {number_of(len(missing), 'listed picture', 'is')} not in the archives, such as {missing[0].relative_to(raw)}; "
            "they are cut or not the official ones."
        )
    if len(set(paths)) < len(paths):
        twice = Counter(paths).most_common(1)[0][0]
        raise UserError(f"{task.name}: {twice.relative_to(raw)} is listed twice; the archives are not the official ones.")
    unseen = sorted(set(range(task.classes)) - {label for _, label in layout.splits["train"]})
    if unseen:
        raise UserError(f"{task.name}: class {layout.classes[unseen[0]]} has no training picture; the archives are not the official ones.")


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
    TASK.write(done / RECORD, {
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
        raise UserError(
            f"two archives hold pictures of the same name, such as {Counter(inside.values()).most_common(1)[0][0]}; "
            "they are not the official ones."
        )
    shared = os.path.commonpath([str(name.parent) for name in inside.values()])
    return {path: (Path(PICTURES) / name.relative_to(shared or ".")).as_posix() for path, name in inside.items()}
