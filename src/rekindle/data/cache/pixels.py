"""Every picture decoded before training, into memory-mapped files: broken ones are found before the first step."""

import hashlib
import mmap
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from typing import Protocol, TypeVar

import numpy as np

from rekindle.data.cache.cache import Cache, CachePartition, Settings, Unusable, touch
from rekindle.data.cache.decode import Undecodable, decode, read
from rekindle.data.cache.shards import Shard, ShardRow
from rekindle.data.formats.folder_walk import shortened
from rekindle.data.formats.images import Picture
from rekindle.errors import UserError, number_of

AHEAD = 256  # Pictures that wait for a thread.
Item = TypeVar("Item")
Made = TypeVar("Made")


class Pixels:
    """Decoded pictures, (H, W, 3) uint8 each; `Pixels.load` makes it.

    They lie in memory-mapped files: it is the system's page cache that decides how much of them stays in memory.

    Args:
        buffers: One array of bytes, or several.
        offsets: (N,) int64, where each picture begins in its buffer.
        shapes: (N, 2) int64, height and width of each picture.
        hashes: SHA-256 of each file's bytes.
        which: (N,) int64, the buffer that each picture lies in; None for a single one.
        owners: What must live as long as the buffers are read.
    """

    def __init__(
        self, buffers: np.ndarray | Sequence[np.ndarray], offsets: np.ndarray, shapes: np.ndarray, hashes: list[str],
        which: np.ndarray | None = None, owners: Sequence[Shard] = (),
    ) -> None:  # fmt: skip
        self._buffers = [buffers] if isinstance(buffers, np.ndarray) else list(buffers)
        self._offsets, self.shapes, self.hashes = offsets, shapes, hashes
        self._which = np.zeros(len(hashes), np.int64) if which is None else which
        self._owners = list(owners)

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width = self.shapes[index]
        start = self._offsets[index]
        flat: np.ndarray = self._buffers[self._which[index]][start : start + height * width * 3]
        return flat.reshape(height, width, 3)

    @classmethod
    def load(
        cls,
        paths: Sequence[Picture],
        edge: int,
        interpolation: str = "bilinear",
        progress: Callable[[int], None] | None = None,
        threads: int | None = None,
        cache: Cache | None = None,
        note: Callable[[str], None] | None = None,
    ) -> "Pixels":
        """Decode in parallel; Pillow lets other threads run meanwhile, and no more pictures are in memory than threads.

        Args:
            paths: Picture files or cells.
            edge: Shorter edge after the resize.
            interpolation: See `decode`.
            progress: Told of the number of pictures done, in the caller's thread.
            threads: At most this many at a time; None takes one a core.
            cache: Where pictures that were decoded before are found and new ones are kept. None, or one that cannot be written,
                decodes into a file without a name, so that a killed process leaves nothing behind.
            note: Told, in a sentence, of what was wrong with the cache.

        Returns:
            The decoded pictures, in the order of the paths.

        Raises:
            UserError: Naming every file that cannot be read and why, or that the disk is full.
        """
        pool = ThreadPoolExecutor(threads or os.cpu_count())
        try:
            loading = _Loading(paths, edge, interpolation, progress, pool)
            if cache is not None:
                loading.through(cache, note or (lambda text: None))
            loading.directly()
        finally:
            # After a full disk or Ctrl-C, do not decode all that is still waiting.
            pool.shutdown(cancel_futures=True)
        return cls._of(loading)

    @classmethod
    def _of(cls, loading: "_Loading") -> "Pixels":
        shards = list({id(shard): shard for shard in loading.shards if shard is not None}.values())
        places = {id(shard): number for number, shard in enumerate(shards)}
        rows = [shard.rows[digest] for shard, digest in zip(loading.shards, loading.digests, strict=True) if shard is not None]
        return cls(
            [shard.buffer for shard in shards], np.array([row.offset for row in rows], np.int64),
            np.array([(row.height, row.width) for row in rows], np.int64).reshape(-1, 2), loading.digests,
            np.array([places[id(shard)] for shard in loading.shards], np.int64), shards,
        )  # fmt: skip

    def content_hash(self, names: Sequence[str], labels: Sequence[int]) -> str:
        """One hash over (name, label, bytes) of each picture, whatever their order.

        Returns:
            64 hexadecimal digits (SHA-256).
        """
        rows = sorted(f"{name}\x1f{label}\x1f{digest}" for name, label, digest in zip(names, labels, self.hashes, strict=True))
        return hashlib.sha256("\x1e".join(rows).encode()).hexdigest()


class _Sink(Protocol):
    """Where decoded pictures go; many threads may add."""

    def add(self, digest: str, image: np.ndarray) -> None: ...

    def finish(self) -> Shard: ...


class _Loading:
    """Pictures on their way from files to shards: which shard holds each of them, and which are broken."""

    def __init__(
        self, pictures: Sequence[Picture], edge: int, interpolation: str, progress: Callable[[int], None] | None, pool: ThreadPoolExecutor
    ) -> None:
        self.pictures, self.edge, self.interpolation = pictures, edge, interpolation
        self.digests = [""] * len(pictures)
        self.shards: list[Shard | None] = [None] * len(pictures)
        self._broken: dict[int, str] = {}
        self._progress, self._done, self._pool = progress, 0, pool

    def through(self, cache: Cache, note: Callable[[str], None]) -> None:
        """Take what the cache has and let it have the rest; where it cannot be written, the rest is left for `directly`."""
        shelf = cache.shelf(Settings(self.edge, self.interpolation), note)
        if shelf.shards:  # Into an empty cache everything is decoded, and hashed as it is read for that.
            self._hash(shelf)
        if self._missing():
            try:
                self._fill(shelf)
            except Unusable as error:
                remedy = "set REKINDLE_HOME to a folder that may be written to keep them"
                note(f"the cache {cache.root} cannot be used ({error}); pictures are decoded for this run alone; {remedy}.")
        touch(self.shards)
        cache.trim()

    def directly(self) -> None:
        """Decode what is missing into a file without a name."""
        missing = self._missing()
        if missing:
            with tempfile.TemporaryFile(buffering=0) as file:
                self._decode([[index] for index in missing], _Unnamed(file))
        self._raise_broken()

    def _missing(self) -> list[int]:
        return [index for index, shard in enumerate(self.shards) if shard is None and index not in self._broken]

    def _hash(self, shelf: CachePartition) -> None:
        """Ask the cache for what is missing, by the hash of each file's bytes."""

        def find(index: int) -> Shard | None:
            try:
                self.digests[index] = self.digests[index] or hashlib.sha256(read(self.pictures[index])).hexdigest()
            except Undecodable as error:
                self._broken[index] = str(error)
                return None
            return shelf.get(self.digests[index])

        missing = self._missing()
        for index, shard in zip(missing, _in_order(self._pool, find, missing), strict=True):
            self.shards[index] = shard
            if shard is not None or index in self._broken:
                self._tell()
        # What was whole in a shard that turned out to be damaged goes with it, so that the new one holds all.
        self.shards = [None if shard is None or shelf.distrusts(shard) else shard for shard in self.shards]
        self._done = len(self.pictures) - len(self._missing())

    def _fill(self, shelf: CachePartition) -> None:
        """Decode into a new shard what no other process has put there meanwhile.

        Raises:
            Unusable: If the cache cannot be written.
        """
        with shelf.writing():
            if shelf.shards:
                self._hash(shelf)
            groups: dict[str, list[int]] = {}
            for index in self._missing():
                groups.setdefault(self.digests[index] or str(index), []).append(index)
            if groups:
                done = self._done
                with shelf.sink() as sink:
                    try:
                        self._decode(list(groups.values()), sink)
                    except Unusable:
                        self._done = done
                        raise

    def _decode(self, groups: list[list[int]], sink: _Sink) -> None:
        """Decode one picture of each group, all of equal bytes, and let the sink hold it for all; equal groups are decoded once."""
        first_of: dict[str, int] = {}

        def enter(group: list[int]) -> str:
            index = group[0]
            try:
                data = read(self.pictures[index])
                digest = hashlib.sha256(data).hexdigest()
                if self.digests[index] not in ("", digest):
                    return "it was changed while it was read"
                self.digests[index] = digest
                if first_of.setdefault(digest, index) == index:
                    sink.add(digest, decode(data, self.edge, self.interpolation))
            except Undecodable as error:
                return str(error)
            return ""

        good = []
        for group, why in zip(groups, _in_order(self._pool, enter, groups), strict=True):
            if why:
                self._broken.update(dict.fromkeys(group, why))
            else:
                good += group
            self._tell(len(group))
        for index in good:  # A broken picture's twin is broken too.
            first = first_of.get(self.digests[index], index)
            if first in self._broken:
                self._broken[index] = self._broken[first]
        if set(good) - self._broken.keys():
            shard = sink.finish()
            for index in good:
                self.shards[index] = None if index in self._broken else shard

    def _tell(self, count: int = 1) -> None:
        for _ in range(count):
            self._done += 1
            if self._progress is not None:
                self._progress(self._done)

    def _raise_broken(self) -> None:
        if self._broken:
            lines = [f"{self.pictures[index]}: {why}" for index, why in sorted(self._broken.items())]
            count = f"{number_of(len(lines), 'image')} cannot be read"
            raise UserError("\n".join([f"{count}; repair or remove, then start again:", *shortened(lines)]))


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """work(item) of each item, in order, `AHEAD` of them at a time: `pool.map` would first queue all, of a million pictures gigabytes."""
    ahead: deque[Future[Made]] = deque()
    for item in items:
        ahead.append(pool.submit(work, item))
        if len(ahead) >= AHEAD:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


class _Unnamed:
    """Appends arrays to a file that has no name; many threads may.

    The file is unbuffered: a buffer would report a full disk a second time, as another error, when it is closed.
    """

    def __init__(self, file: FileIO) -> None:
        self._file, self._end, self._lock = file, 0, threading.Lock()
        self._rows: dict[str, ShardRow] = {}

    def add(self, digest: str, image: np.ndarray) -> None:
        """Write an array."""
        rest = np.ascontiguousarray(image).data.cast("B")
        with self._lock:
            self._rows[digest] = ShardRow(self._end, *image.shape[:2])
            self._end += len(rest)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                raise UserError(
                    f"no room for decoded pictures in {tempfile.gettempdir()} ({error.strerror}); "
                    "free some, or set TMPDIR to a larger disk."
                ) from None

    def finish(self) -> Shard:
        """All bytes, read-only; the mapping keeps the unnamed file alive after it is closed."""
        return Shard(np.frombuffer(mmap.mmap(self._file.fileno(), self._end, access=mmap.ACCESS_READ), np.uint8), self._rows)
