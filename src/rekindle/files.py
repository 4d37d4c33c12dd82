"""Files that are written whole or not at all, digests that tell whether they still are what was written, locks between commands.

It loads no torch. A safetensors file carries the SHA-256 of all its bytes in its own metadata, so it stays one that any program opens. The hash is
made with zeros in place of the digest, since no file can hold the hash of itself.
"""

import csv
import errno
import hashlib
import io
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rekindle.errors import UserError

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
TRIES = 1000
TEMPORARY_BYTES = 100  # Of a file's name that its temporary one keeps, since a name may be as long as the file system takes.
LOCKLESS = {getattr(errno, name) for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP") if hasattr(errno, name)}


class NoLocks(UserError):
    """A folder on a file system without locks, where commands cannot know of each other."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the file system of {folder} has no locks, without which two commands would spoil each other's work; choose another folder."
        )


_LENGTH = 64
DIGEST = {"sha256": "0" * _LENGTH}  # Metadata that leave room for the digest.
_MARK = b'"sha256":"'


class DamagedFile(Exception):
    """A file that is not what was written; the message is the reason alone."""


def write_with_digest(path: Path, content: bytes) -> None:
    """Write a safetensors file with its digest in it, whole or not at all.

    The SHA-256 of a checkpoint of SqueezeNet 1.1 with momentum (9.9 MB) takes 8 ms of processor time on one core of a Xeon with SHA
    instructions, where BLAKE2b would take 16.

    Args:
        path: Where to.
        content: The file's bytes, `DIGEST` among its metadata.

    Raises:
        ValueError: If the metadata leave no room for the digest.
    """
    start = _place(content[: _header_end(content, len(content))])
    if start is None:
        raise ValueError(f"{path.name} has no room for a digest among its metadata.")
    rest = memoryview(content)[start + _LENGTH :]
    write_atomic(path, content[:start] + _digest(content[:start], rest), rest)


def read_with_digest(path: Path) -> bytes | None:
    """Read a safetensors file and compare it with the digest in it.

    Returns:
        The bytes that were compared, or None for a file without a digest: another program's, or one of rekindle 0.1.

    Raises:
        DamagedFile: If its bytes are not those that were written.
        OSError: If it cannot be read.
    """
    with open(path, "rb") as file:
        start = _place(file.read(_header_end(file.read(8), os.fstat(file.fileno()).st_size) - 8), 8)
        if start is None:
            return None
        file.seek(0)
        content = file.read()
    if content[start : start + _LENGTH] != _digest(content[:start], memoryview(content)[start + _LENGTH :]):
        raise DamagedFile("its bytes are not those that were written")
    return content


def _header_end(head: bytes, size: int) -> int:
    """Where the header of a safetensors file ends, by its first eight bytes; never beyond the file."""
    return max(8, min(8 + int.from_bytes(head[:8], "little"), size))


def _place(header: bytes, offset: int = 0) -> int | None:
    """Where the digest begins in the file; quotes inside metadata are escaped, so the mark stands nowhere else."""
    found = header.find(_MARK)
    return None if found < 0 else found + len(_MARK) + offset


def _digest(before: bytes, after: memoryview) -> bytes:
    """Hexadecimal SHA-256 of a file whose digest stands between the two parts."""
    sha256 = hashlib.sha256(before)
    sha256.update(DIGEST["sha256"].encode())
    sha256.update(after)
    return sha256.hexdigest().encode()


def expand(path: str | Path) -> Path:
    """A path with the user's folder in place of a leading `~`; as it stands where the user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def write_atomic(path: Path, *content: bytes | memoryview | str) -> None:
    """Put the parts of `content` at `path` whole or not at all, also when the machine stops in the midst of it."""
    name = path.name.encode("utf-8", "surrogateescape")[:TEMPORARY_BYTES].decode("utf-8", "ignore")
    # Nobody can guess the name, and "x" opens no file or link that is there already.
    temporary = path.with_name(f".{name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.writelines(part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, name: str = "*") -> None:
    """Remove what killed processes left of `write_atomic`; only for whoever is the only one to write there.

    Args:
        folder: Where files were written; it need not exist.
        name: Of the file that was written.
    """
    for path in folder.glob(f".{name}.*.tmp"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(path: Path, *, waiting: str | None = None, note: Callable[[str], None] | None = None, required: bool = False) -> Iterator[bool]:
    """Hold a lock file, which the system lets go of when its owner dies.

    The file stays when it is let go. Only its holder may remove it, and its folder; whoever came meanwhile begins anew.

    Args:
        path: The lock file; its folder is made.
        waiting: Said before waiting for somebody else; None does not wait.
        note: Told `waiting`, and that a file system has no locks, where one goes on without.
        required: Do not go on without a lock.

    Yields:
        Whether the lock is held; False where somebody else holds it.

    Raises:
        NoLocks: If the file system has no locks and one is required.
        OSError: If the lock file cannot be written.
    """
    try:
        lock = _acquire(path, waiting, note)
    except NoLocks:
        if required:
            raise
        if note is not None:
            note(f"the file system of {path.parent} has no locks; let no other command work there at the same time.")
        yield True
        return
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def _acquire(path: Path, waiting: str | None, note: Callable[[str], None] | None) -> FileLock | None:
    """The lock, held, or None where somebody else holds it and is not waited for."""
    lock, timeout, tries = FileLock(path), 0, TRIES
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=timeout)
            return lock
        except (FileNotFoundError, FileExistsError):  # Other commands make the folder and remove it at this moment.
            tries -= 1
            if not tries:
                raise
        except Timeout:
            if not path.exists():
                continue  # The holder removed the file between our opening and locking it.
            if waiting is None:
                return None
            if note is not None and waiting:
                note(waiting)
            timeout = -1
        except NotImplementedError:
            raise NoLocks(path.parent) from None
        except OSError as error:
            if error.errno in LOCKLESS:
                raise NoLocks(path.parent) from None
            raise


def remove_if_unused(folder: Path, lock: str) -> None:
    """Remove a folder that holds nothing but its own lock file, for the holder of that lock.

    Removing it after the lock was let go would take it away from whoever holds it next.
    """
    if {path.name for path in folder.iterdir()} <= {lock}:
        with suppress(OSError):  # Windows removes no open file, and a newcomer may have made a lock file of its own.
            (folder / lock).unlink(missing_ok=True)
            folder.rmdir()


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read; NaN is refused."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """A CSV file's text, one line a row; no text in it is a formula to a spreadsheet. `plain_text` undoes that."""
    return "".join(_csv_line(row) for row in (header, *rows))


def _csv_line(row: Iterable[Any]) -> str:
    """A row as CSV. The writer puts quotes around a text that holds a character of its line end, so it must have both of them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow([safe_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().removesuffix("\r\n") + "\n"


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that `csv_text` made: {column: text}."""
    with open(path, encoding="utf-8", newline="") as file:
        return [{plain_text(name): plain_text(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def safe_text(text: str) -> str:
    """A cell's text with an apostrophe before it where a spreadsheet would run it as a formula; numbers stay."""
    return f"'{text}" if _is_formula(text) else text


def plain_text(cell: str) -> str:
    """The text that `safe_text` made a cell of."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    """Whether a text, after apostrophes, begins as a formula does and is no number."""
    if not text.lstrip("'").startswith(FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return text[0] in "\t\r\n"
