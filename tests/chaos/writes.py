"""A process that is killed at one of its writes, or counts them."""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def arm(root: Path, counter: Path, fatal: int | None = None) -> None:
    """Count what this process changes below `root`, one byte a change in the file `counter`, and kill it before change `fatal`.

    At a flush half of what was written is left, and at an append half a line, as a kill in the midst of it would leave them.
    """
    handle = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    flush, changes = os.fsync, 0

    def is_last() -> bool:
        nonlocal changes
        changes += 1
        os.write(handle, b".")
        return changes == fatal

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if not (event in CHANGES or (event == "open" and arguments[2] & WRITING)) or not str(arguments[0]).startswith(str(root)):
            return
        if is_last():
            if event == "open" and arguments[2] & os.O_APPEND:
                leave_half_a_line(str(arguments[0]))
            die()

    def on_flush(file: int) -> None:
        if is_last():
            os.truncate(file, os.fstat(file).st_size // 2)
            die()
        flush(file)

    os.fsync = on_flush
    sys.addaudithook(on_event)


def leave_half_a_line(path: str) -> None:
    """What an append leaves that was cut off."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.lseek(file, 0, os.SEEK_END)
    os.write(file, b'{"epoch": 1, "train": {"loss": 0.')


def die() -> NoReturn:
    """End as by a loss of power."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived SIGKILL")
