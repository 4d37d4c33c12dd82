"""Every picture decoded once, up front, into one memory-mapped file: broken ones are found before training."""

import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rekindle.data.decode import Undecodable, decode
from rekindle.errors import UserError

SHOWN = 50


class Pixels:
    """Decoded pictures, (H, W, 3) uint8 each; `Pixels.load` makes it.

    The file has no name, so that a killed process leaves nothing behind, and it is the system's page cache that decides
    how much of it stays in memory.

    Attributes:
        hashes: SHA-256 of each file's bytes.
    """

    def __init__(self, buffer: np.ndarray, offsets: np.ndarray, shapes: np.ndarray, hashes: list[str]) -> None:
        self._buffer, self.offsets, self.shapes, self.hashes = buffer, offsets, shapes, hashes

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width = self.shapes[index]
        start = self.offsets[index]
        return self._buffer[start : start + height * width * 3].reshape(height, width, 3)

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        edge: int,
        interpolation: str = "bilinear",
        progress: Callable[[int], None] | None = None,
        threads: int | None = None,
    ) -> "Pixels":
        """Decode in parallel; Pillow lets other threads run meanwhile.

        Args:
            paths: Picture files.
            edge: Shorter edge after the resize.
            interpolation: See `decode`.
            progress: Told of the number of pictures done.
            threads: At most this many at a time; None takes one a core.

        Raises:
            UserError: Naming every file that cannot be read and why, or that the disk is full.
        """
        offsets, shapes, hashes, broken, end = [], [], [], [], 0

        def one(path: Path) -> tuple[np.ndarray | None, str]:
            try:
                return decode(path, edge, interpolation), hashlib.sha256(path.read_bytes()).hexdigest()
            except (Undecodable, OSError) as error:
                return None, str(error)

        with tempfile.TemporaryFile() as file, ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for done, (path, (image, text)) in enumerate(zip(paths, pool.map(one, paths), strict=True), 1):
                if image is None:
                    broken.append(f"  {path}: {text}")
                else:
                    _write(file, image)
                    offsets.append(end)
                    shapes.append(image.shape[:2])
                    hashes.append(text)
                    end += image.size
                if progress is not None:
                    progress(done)
            if broken:
                raise UserError(_broken(broken))
            file.flush()
            # The mapping keeps the unnamed file alive after it is closed.
            buffer = np.frombuffer(mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ), np.uint8)
        return cls(buffer, np.array(offsets, np.int64), np.array(shapes, np.int64), hashes)

    def content_hash(self, names: Sequence[str], labels: Sequence[int]) -> str:
        """One hash over (name, label, bytes) of each picture, whatever their order."""
        rows = sorted(f"{name}\x1f{label}\x1f{digest}" for name, label, digest in zip(names, labels, self.hashes, strict=True))
        return hashlib.sha256("\x1e".join(rows).encode()).hexdigest()


def _write(file: "tempfile._TemporaryFileWrapper[bytes]", image: np.ndarray) -> None:  # type: ignore[type-arg]
    try:
        file.write(image.tobytes())
    except OSError as error:
        raise UserError(f"no room for decoded pictures in {tempfile.gettempdir()} ({error}); free some, or set TMPDIR to a larger disk.") from None


def _broken(lines: list[str]) -> str:
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    count = "1 image cannot be read" if len(lines) == 1 else f"{len(lines)} images cannot be read"
    return "\n".join([f"{count}; repair or remove, then start again:", *lines[:SHOWN], *more])
