"""Every picture decoded once, up front, into one memory-mapped file: broken ones are found before training."""

import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO

import numpy as np

from rekindle.data.cells import Picture
from rekindle.data.decode import Undecodable, decode, read
from rekindle.data.tree import shortened
from rekindle.errors import UserError


class Pixels:
    """Decoded pictures, (H, W, 3) uint8 each; `Pixels.load` makes it.

    The file has no name, so that a killed process leaves nothing behind, and it is the system's page cache that decides
    how much of it stays in memory.

    Attributes:
        shapes: (N, 2) int64, height and width of each picture.
        hashes: SHA-256 of each file's bytes.
    """

    def __init__(self, buffer: np.ndarray, offsets: np.ndarray, shapes: np.ndarray, hashes: list[str]) -> None:
        self._buffer, self._offsets, self.shapes, self.hashes = buffer, offsets, shapes, hashes

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width = self.shapes[index]
        start = self._offsets[index]
        return self._buffer[start : start + height * width * 3].reshape(height, width, 3)

    @classmethod
    def load(
        cls,
        paths: Sequence[Picture],
        edge: int,
        interpolation: str = "bilinear",
        progress: Callable[[int], None] | None = None,
        threads: int | None = None,
    ) -> "Pixels":
        """Decode in parallel; Pillow lets other threads run meanwhile, and no more pictures are in memory than threads.

        Args:
            paths: Picture files or cells.
            edge: Shorter edge after the resize.
            interpolation: See `decode`.
            progress: Told of the number of pictures done, in the caller's thread.
            threads: At most this many at a time; None takes one a core.

        Raises:
            UserError: Naming every file that cannot be read and why, or that the disk is full.
        """
        broken: list[str] = []
        entries: list[_Entry] = []
        with tempfile.TemporaryFile(buffering=0) as file:
            store = _Store(file)
            pool = ThreadPoolExecutor(threads or os.cpu_count())
            try:
                for done, (path, entry) in enumerate(
                    zip(paths, pool.map(lambda p: _enter(store, p, edge, interpolation), paths), strict=True), 1
                ):
                    if isinstance(entry, _Entry):
                        entries.append(entry)
                    else:
                        broken.append(f"{path}: {entry}")
                    if progress is not None:
                        progress(done)
            finally:
                # After a full disk or Ctrl-C, do not decode all that is still waiting.
                pool.shutdown(cancel_futures=True)
            if broken:
                count = "1 image cannot be read" if len(broken) == 1 else f"{len(broken)} images cannot be read"
                raise UserError("\n".join([f"{count}; repair or remove, then start again:", *shortened(broken)]))
            buffer = store.mapped()
        offsets = np.array([entry.offset for entry in entries], np.int64)
        shapes = np.array([entry.shape for entry in entries], np.int64).reshape(-1, 2)
        return cls(buffer, offsets, shapes, [entry.digest for entry in entries])

    def content_hash(self, names: Sequence[str], labels: Sequence[int]) -> str:
        """One hash over (name, label, bytes) of each picture, whatever their order."""
        rows = sorted(f"{name}\x1f{label}\x1f{digest}" for name, label, digest in zip(names, labels, self.hashes, strict=True))
        return hashlib.sha256("\x1e".join(rows).encode()).hexdigest()


@dataclass(frozen=True)
class _Entry:
    """Where a picture lies in the file, its (height, width), and the SHA-256 of what it was decoded from."""

    offset: int
    shape: tuple[int, int]
    digest: str


class _Store:
    """Appends arrays to a file; many threads may.

    The file is unbuffered: a buffer would report a full disk a second time, as another error, when it is closed.
    """

    def __init__(self, file: FileIO) -> None:
        self._file, self._end, self._lock = file, 0, threading.Lock()

    def add(self, image: np.ndarray) -> int:
        """Write an array and return its offset."""
        rest = np.ascontiguousarray(image).data.cast("B")
        with self._lock:
            start, self._end = self._end, self._end + len(rest)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                raise UserError(
                    f"no room for decoded pictures in {tempfile.gettempdir()} ({error.strerror}); free some, or set TMPDIR to a larger disk."
                ) from None
        return start

    def mapped(self) -> np.ndarray:
        """All bytes, read-only; the mapping keeps the unnamed file alive after it is closed."""
        if self._end == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(self._file.fileno(), self._end, access=mmap.ACCESS_READ), np.uint8)


def _enter(store: _Store, path: Picture, edge: int, interpolation: str) -> "_Entry | str":
    """Decode one file into the store, or say why it cannot be."""
    try:
        data = read(path)
        image = decode(data, edge, interpolation)
    except Undecodable as error:
        return str(error)
    return _Entry(store.add(image), image.shape[:2], hashlib.sha256(data).hexdigest())
