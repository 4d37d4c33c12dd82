"""A shard: one Arrow IPC file of decoded pictures, found by the SHA-256 of the bytes that they were decoded from.

It is written in record batches of bounded size and read through a memory map without a copy. Each row carries a CRC-32 of its
pixels, so that a bit lost on the disk, or pages that a power failure left empty, are seen before they are trained on.
"""

import os
import threading
import zlib
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rekindle.errors import first_line

if TYPE_CHECKING:
    import pyarrow

try:
    import fcntl
except ImportError:  # Windows, where a mapped file cannot be removed anyway.
    fcntl = None  # type: ignore[assignment]

BATCH_BYTES = 16 << 20


class Damaged(Exception):
    """A shard that cannot be trusted; the message is the reason alone."""


class ShardRow(NamedTuple):
    """Where a picture lies in its shard's buffer, and the CRC-32 of its pixels (None in a file that only this process has)."""

    offset: int
    height: int
    width: int
    crc: int | None = None


class Shard:
    """Decoded pictures in one buffer of bytes.

    Attributes:
        buffer: (bytes,) uint8, read-only.
        rows: {digest of the encoded bytes: where the picture lies}.
        path: The file, or None where it has no name.
    """

    def __init__(self, buffer: np.ndarray, rows: dict[str, ShardRow], path: Path | None = None, lock: BufferedReader | None = None) -> None:
        self.buffer, self.rows, self.path, self._lock = buffer, rows, path, lock

    @classmethod
    def open(cls, path: Path) -> "Shard":
        """Map a file, and mark it as in use for as long as the shard lives.

        Returns:
            The mapped file; it is in use until the object is gone.

        Raises:
            Damaged: If it is cut off or not a shard.
            FileNotFoundError: If it has gone meanwhile.
        """
        import pyarrow as pa

        # Not closed here: the lock ends with the file object, so also when the process is killed.
        lock = open(path, "rb")  # noqa: SIM115
        _lock(lock, shared=True)
        try:
            with pa.memory_map(str(path)) as file:
                whole = file.read_buffer()
            rows = _rows(whole)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(first_line(error)) from None
        return cls(np.frombuffer(whole, np.uint8), rows, path, lock)

    def pixels(self, digest: str) -> np.ndarray:
        """(H, W, 3) uint8, a view.

        Returns:
            (H, W, 3) uint8, which must not be written to.
        """
        row = self.rows[digest]
        return self.buffer[row.offset : row.offset + row.height * row.width * 3].reshape(row.height, row.width, 3)

    def is_whole(self, digest: str) -> bool:
        """Whether a picture's pixels are those that were written.

        Returns:
            True where their checksum is the stored one.
        """
        return zlib.crc32(self.pixels(digest).data) == self.rows[digest].crc


class ShardWriter:
    """Writes a shard, a record batch at a time. Many threads may add: one of them writes while the others go on collecting.

    Args:
        path: The file to write.

    Raises:
        OSError: Also from `add` and `close`, if the disk is full or may not be written.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _schema())
        self._pending: list[tuple[str, int, np.ndarray]] = []
        self._bytes = 0
        self._collecting, self._writing = threading.Lock(), threading.Lock()

    def add(self, digest: str, image: np.ndarray) -> None:
        """Add one picture, (H, W, 3) uint8."""
        image = np.ascontiguousarray(image)
        crc = zlib.crc32(image.data)
        with self._collecting:
            self._pending.append((digest, crc, image))
            self._bytes += image.nbytes
            full = self._take() if self._bytes >= BATCH_BYTES else []
        if full:
            self._write(full)

    def close(self) -> None:
        """Write what is left and the footer that makes it an Arrow file."""
        with self._collecting:
            rest = self._take()
        if rest:
            self._write(rest)
        with self._writing:
            self._writer.close()
            self._sink.close()

    def abandon(self) -> None:
        """Close the file as it is; what other threads still add is refused."""
        with self._writing:
            self._sink.close()

    def _take(self) -> list[tuple[str, int, np.ndarray]]:
        taken, self._pending, self._bytes = self._pending, [], 0
        return taken

    def _write(self, rows: list[tuple[str, int, np.ndarray]]) -> None:
        import pyarrow as pa

        digests, crcs, images = zip(*rows, strict=True)
        ends = np.cumsum([0, *(image.nbytes for image in images)], dtype=np.int64)
        data = np.concatenate([image.reshape(-1) for image in images])
        pixels = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(rows), [None, pa.py_buffer(ends), pa.py_buffer(data)])
        plain = [list(digests), list(crcs), [image.shape[0] for image in images], [image.shape[1] for image in images]]
        arrays = [pa.array(column, field.type) for column, field in zip(plain, _schema(), strict=False)]
        batch = pa.record_batch([*arrays, pixels], schema=_schema())
        with self._writing:
            if self._sink.closed:
                raise OSError("the shard was given up")
            self._writer.write_batch(batch)


def remove(path: Path) -> bool:
    """Delete a shard that no live process uses; False if one does, or if it may not be deleted.

    Returns:
        True if the file was deleted.
    """
    try:
        with open(path, "rb") as file:
            if not _lock(file, shared=False):
                return False
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def is_used(path: Path) -> bool:
    """Whether a live process has the shard open.

    Returns:
        True while any process, this one included, has it open.
    """
    try:
        with open(path, "rb") as file:
            return not _lock(file, shared=False)
    except OSError:
        return False


def _lock(file: BufferedReader, shared: bool) -> bool:
    """Try to lock a file until it is closed; many processes may share it. Disks without locks count as unlocked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _schema() -> "pyarrow.Schema":
    import pyarrow as pa

    return pa.schema(
        [("digest", pa.string()), ("crc32", pa.uint32()), ("height", pa.int32()), ("width", pa.int32()), ("pixels", pa.large_binary())]
    )


def _rows(whole: "pyarrow.Buffer") -> dict[str, ShardRow]:
    """Where each picture lies in the bytes of an Arrow file.

    Raises:
        ValueError: If the file contradicts itself; `pyarrow.ArrowInvalid` is one.
    """
    import pyarrow as pa

    reader = pa.ipc.open_file(whole)
    if not reader.schema.equals(_schema()):
        raise ValueError("its columns are not those of a shard")
    rows: dict[str, ShardRow] = {}
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        batch.validate(full=True)
        pixels = batch.column("pixels")
        _, offsets, data = pixels.buffers()
        if len(batch) == 0 or data is None:
            raise ValueError("it has a batch without pixels")
        places = np.frombuffer(offsets, np.int64)[pixels.offset : pixels.offset + len(batch) + 1]
        start = data.address - whole.address
        names, crcs, heights, widths = (batch.column(name).to_pylist() for name in ("digest", "crc32", "height", "width"))
        for digest, crc, height, width, place, end in zip(
            names, crcs, heights, widths, places[:-1].tolist(), places[1:].tolist(), strict=True
        ):
            if min(height, width) < 1 or height * width * 3 != end - place:
                raise ValueError("a picture's size and its pixels disagree")
            rows[digest] = ShardRow(start + place, height, width, crc)
    return rows


def size(path: Path) -> int:
    """Bytes of a file; 0 if it has gone.

    Returns:
        Bytes, 0 or more.
    """
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
