"""Files from several addresses: checked, resumed where they broke off, and never half there under their own name.

pooch checks hashes and moves a file into place; here is what it lacks: several addresses, HTTP ranges, and telling a web page from a file.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pooch
import requests

from rekindle.data.tasks.archives import FULL, looks_like_a_page, room
from rekindle.errors import Unreadable, UserError
from rekindle.locks import locked
from rekindle.stored import FileFormat

PARTIAL = FileFormat(2, dict[str, str])  # Of a download that was cut.
TIMEOUT = (15, 60)  # Seconds to connect, and between two pieces.
CHUNK = 2**18
TRIES = 3  # A connection may break this often without a new byte.
PART, STATE = ".part", ".json"
WAIT = 2.0  # Seconds before a broken connection is tried again.

Progress = Callable[[int, int], None]
Note = Callable[[str], None]


class Failed(UserError):
    """A file that no address gave; `reasons` has a line for each of them."""

    def __init__(self, name: str, reasons: list[str]) -> None:
        super().__init__("\n".join([f"no address gave {name}:", *(f"  {reason}" for reason in reasons)]))
        self.reasons = reasons


class _NotTheFile(Exception):
    """What came is not what was asked for; the message is the reason alone."""


class _Cut(Exception):
    """The connection broke; the message is the reason alone."""


def fetch(
    name: str, urls: Sequence[str], known_hash: str, folder: Path, progress: Progress | None = None, note: Note | None = None
) -> tuple[Path, str]:
    """Have a file in `folder`, from the first address that gives it.

    Args:
        name: Its name.
        urls: Addresses, tried in order.
        known_hash: "ALGORITHM:DIGEST", or "" if none is known.
        folder: Where files are kept; one that is there already is taken if its hash is right.
        progress: Told of (bytes here, bytes in all).
        note: Told when another process has to be waited for.

    Returns:
        Its path, and the address it came from, or "" if it was there.

    Raises:
        Failed: If no address gave it. A partial file stays, in .NAME.partial, only where its server can go on with it.
        UserError: If the disk is full.
    """
    path = folder / name
    with room(path):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{name}.lock", waiting=f"another process is fetching {name}; waiting for it.", note=note):
        if path.is_file() and pooch.hashes.hash_matches(path, known_hash or None):
            return path, ""
        with _workshop(path) as work:
            reasons = []
            for url in urls:
                try:
                    _retrieve(url, known_hash, work / name, progress)
                    os.replace(work / name, path)
                    return path, url
                except (_NotTheFile, _Cut, requests.RequestException) as error:
                    reasons.append(f"{url}: {_why(error)}")
                except ValueError as error:  # pooch found another hash.
                    if isinstance(error, UserError):
                        raise
                    reasons.append(f"{url}: {str(error).split('. ')[0]}")
            raise Failed(name, reasons)


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file.

    Returns:
        Lower-case hexadecimal digits, as many as the algorithm has.
    """
    return str(pooch.file_hash(str(path), algorithm))


@contextmanager
def _workshop(path: Path) -> Iterator[Path]:
    """A folder for what is not whole yet; it stays only while it holds a part to go on with."""
    work = path.with_name(f".{path.name}.partial")
    with room(work):
        work.mkdir(exist_ok=True)
        try:
            yield work
        finally:
            for stray in work.iterdir():
                # Also what pooch had open when a process was killed.
                if path.is_file() or not stray.name.endswith((PART, STATE)):
                    stray.unlink(missing_ok=True)
            if not any(work.iterdir()):
                work.rmdir()


def _retrieve(url: str, known_hash: str, path: Path, progress: Progress | None) -> None:
    log = pooch.get_logger()
    level, _ = log.level, log.setLevel(logging.ERROR)
    try:
        pooch.retrieve(url, known_hash or None, fname=path.name, path=path.parent, downloader=_Resuming(path, progress))
    finally:
        log.setLevel(level)


class _Resuming:
    """A downloader for pooch that goes on where a connection, or an earlier process, stopped."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self._path, self._progress = path, progress

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        # A part belongs to one address: another one may have packed the same pictures in another order.
        stem = hashlib.sha256(url.encode()).hexdigest()[:8]
        self._part, self._state = (self._path.with_name(stem + ending) for ending in (PART, STATE))
        self._resumable = self._known(url)[0] > 0
        keep = False
        try:
            self._until_whole(url)
            os.replace(self._part, output_file)
        except KeyboardInterrupt:
            keep = self._resumable
            raise
        except (_Cut, requests.RequestException) as error:
            keep = self._resumable and self._have() > 0
            if keep:
                raise _Cut(f"{_why(error)}; {self._have() / 2**20:.1f} MiB are kept, and the same command goes on from there") from None
            raise
        except OSError as error:
            if error.errno in FULL:
                raise UserError(
                    f"no room in {self._part.parent} for {url} ({error.strerror}); free some, "
                    "or choose a larger disk with --root or REKINDLE_HOME."
                ) from None
            raise
        finally:
            if not keep:
                self._part.unlink(missing_ok=True)
                self._state.unlink(missing_ok=True)

    def _until_whole(self, url: str) -> None:
        """Try again while each try brings new bytes, and a few times when it does not; a server that never answered has its one try."""
        most, idle = self._have(), 0
        while True:
            try:
                return self._once(url)
            except (_Cut, requests.ConnectionError, requests.Timeout):
                have = self._have()
                idle = 0 if have > most else idle + 1
                most = max(most, have)
                if most == 0 or idle >= (TRIES if self._resumable else 1):
                    raise
            time.sleep(WAIT)

    def _once(self, url: str) -> None:
        start, validator = self._known(url)
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-", "If-Range": validator} if start else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                self._part.unlink()
                raise _Cut("the partial file did not fit the server's")
            answer.raise_for_status()
            if not (answer.status_code == requests.codes.partial_content and _starts_at(answer) == start):
                start = 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else 0
            self._remember(url, answer, start)
            self._check_room(total - start)
            self._receive(answer, start, total)

    def _receive(self, answer: requests.Response, start: int, total: int) -> None:
        have = start
        with open(self._part, "ab" if start else "wb") as file:
            try:
                for piece in answer.iter_content(CHUNK):
                    if have == 0:
                        _check_head(piece, answer)
                    file.write(piece)
                    have += len(piece)
                    if self._progress is not None:
                        self._progress(have, total)
            except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError, requests.Timeout):
                raise _Cut(_cut_at(have, total)) from None
        if total and have != total:
            raise _Cut(_cut_at(have, total))
        if have == 0:
            raise _NotTheFile("an empty file")

    def _known(self, url: str) -> tuple[int, str]:
        """How many bytes of this very file are here, and what identifies its version to the server."""
        try:
            state = PARTIAL.read(self._state)
        except Unreadable:
            return 0, ""
        return (self._have(), state["validator"]) if state.get("url") == url and state.get("validator") else (0, "")

    def _remember(self, url: str, answer: requests.Response, start: int) -> None:
        etag = answer.headers.get("ETag", "")
        # A weak tag promises the same meaning, not the same bytes.
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        self._resumable = bool(validator) and (start > 0 or answer.headers.get("Accept-Ranges", "").lower() == "bytes")
        if start == 0:
            PARTIAL.write(self._state, {"url": url, "validator": validator if self._resumable else ""})

    def _check_room(self, more: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if more > free:
            raise UserError(
                f"no room in {self._part.parent}: {self._path.name} needs {more / 2**20:.0f} MiB more and {free / 2**20:.0f} MiB are free; "
                "free some, or choose a larger disk with --root or REKINDLE_HOME."
            )

    def _have(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0


def _check_head(piece: bytes, answer: requests.Response) -> None:
    kind = answer.headers.get("Content-Type", "").lower()
    if looks_like_a_page(piece[:1024]) or kind.startswith("text/html"):
        raise _NotTheFile("a web page instead of the file")


def _starts_at(answer: requests.Response) -> int:
    """The first byte's position that a partial answer names in "Content-Range: bytes 5-9/10", or -1."""
    words = answer.headers.get("Content-Range", "").removeprefix("bytes").strip().split("-")
    return int(words[0]) if words[0].isdigit() else -1


def _cut_at(have: int, total: int) -> str:
    share = f" ({100 * have / total:.0f} %)" if total else ""
    return f"the connection broke after {have} of {total or '?'} bytes{share}"


def _why(error: Exception) -> str:
    """A reason in a few words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not valid"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error) or type(error).__name__
