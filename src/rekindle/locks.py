"""Locks between commands that work in one place. It loads no torch."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rekindle.errors import UserError

TRIES = 1000
LOCKLESS = {getattr(errno, name) for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP") if hasattr(errno, name)}


class NoLocks(UserError):
    """A folder on a file system without locks, where commands cannot know of each other."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the file system of {folder} has no locks, without which two commands would spoil each other's work; choose another folder."
        )


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
