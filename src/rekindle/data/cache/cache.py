"""Decoded pictures kept on disk, shared by all runs and processes, and evicted by last use: each is decoded once, whatever run it is in.

Layout: HOME/pixels/SETTINGS/NAME.arrow. SETTINGS hashes all that decides a pixel beside the file's bytes; inside a shard a picture
is found by the SHA-256 of its bytes, so a renamed file is found again and a changed one never. One process at a time writes
below one SETTINGS; a shard gets its name when it is whole, so a kill leaves nothing but a `.partial` file, which the next
writer removes. Shards that were used longest ago are removed where the cache exceeds its limit.
"""

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from rekindle.data.cache.cache_dir import home
from rekindle.data.cache.decode import RULES
from rekindle.data.cache.shards import Damaged, Shard, ShardWriter, is_used, remove, size
from rekindle.errors import Later, Unreadable, UserError, number_of
from rekindle.files import remove_temporaries
from rekindle.locks import NoLocks, locked, remove_if_unused
from rekindle.stored import FileFormat

GB = 1e9
LIMIT_GB = 50.0
SUFFIX, PARTIAL = ".arrow", ".partial"
SETTINGS, LOCK = "settings.json", ".lock"

CACHE = FileFormat(2, dict[str, Any], "it is written again")

Note = Callable[[str], None]


class Unusable(Exception):
    """The cache cannot be written; the message is the reason alone."""


@dataclass(frozen=True)
class Settings:
    """All that decides a picture's pixels beside its bytes.

    Attributes:
        edge: Shorter edge after the resize.
        interpolation: See `decode`.
        rules: Version of our rules for each kind of picture.
        pillow: Pillow's version, whose decoders and resize may change.
    """

    edge: int
    interpolation: str
    rules: int = RULES
    pillow: str = PIL.__version__

    @property
    def name(self) -> str:
        """Twelve hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Cache:
    """All shards below one folder.

    Attributes:
        root: The folder; it need not exist.
        limit: Bytes.
    """

    root: Path
    limit: float = LIMIT_GB * GB

    @classmethod
    def default(cls, root: str | Path | None = None) -> "Cache":
        """The cache in `root`, else in REKINDLE_HOME, else in ~/.cache/rekindle; bounded by REKINDLE_CACHE_GB.

        Returns:
            A cache that is bounded in bytes; its folder is made when something is first written.

        Raises:
            UserError: If REKINDLE_CACHE_GB is not a number of gigabytes.
        """
        text = os.environ.get("REKINDLE_CACHE_GB", "") or str(LIMIT_GB)
        try:
            limit = float(text) * GB
        except ValueError:
            limit = -1.0
        if not limit >= 0:
            raise UserError(f"REKINDLE_CACHE_GB must be a number of gigabytes, such as 50, found {text!r}.")
        return cls(home(root) / "pixels", limit)

    def shelf(self, settings: Settings, note: Note) -> "CachePartition":
        """The shards of one setting.

        Returns:
            The partition, whose folder need not exist yet.
        """
        return CachePartition(self.root / settings.name, settings, self.limit, note)

    def listing(self) -> list[dict[str, Any]]:
        """Each setting: what it is, and its shards with bytes, last use (seconds since 1970) and whether a live process uses them.

        Returns:
            One mapping a setting, as `rekindle data cache --json` prints them.
        """
        found = []
        for folder in _folders(self.root):
            paths = sorted(folder.glob("*" + SUFFIX))
            shards = [{"name": path.stem, "bytes": size(path), "last_use": _mtime(path), "in_use": is_used(path)} for path in paths]
            found.append({"settings": folder.name, **_described(folder), "bytes": sum(map(size, paths)), "shards": shards})
        return found

    def clear(self, settings: str | None = None) -> tuple[int, int]:
        """Remove all shards that no live process uses, and what killed processes left.

        Args:
            settings: Only those of this setting.

        Returns:
            Bytes removed, and bytes that are in use or may not be removed.

        Raises:
            UserError: If there is no such setting.
        """
        folders = _folders(self.root)
        if settings is not None:
            folders = [folder for folder in folders if folder.name == settings]
            if not folders:
                known = ", ".join(folder.name for folder in _folders(self.root)) or "nothing"
                raise UserError(f"the cache has no settings {settings!r}; it has {known}.")
        freed = left = 0
        for folder in folders:
            with _lock_if_free(folder) as alone:
                stale = list(folder.glob("*" + PARTIAL)) if alone else []
                for path in [*stale, *folder.glob("*" + SUFFIX)]:
                    bytes_ = size(path)
                    if remove(path):
                        freed += bytes_
                    else:
                        left += bytes_
                if alone and not any(folder.glob("*" + SUFFIX)):
                    remove_temporaries(folder)
                    (folder / SETTINGS).unlink(missing_ok=True)
                    remove_if_unused(folder, LOCK)
        return freed, left

    def trim(self) -> list[Path]:
        """Remove shards, those used longest ago first, until the rest keeps to the limit; those in use stay. What was removed.

        Returns:
            Paths of the shards that were removed, oldest use first.
        """
        paths = [path for folder in _folders(self.root) for path in folder.glob("*" + SUFFIX)]
        total, removed = sum(size(path) for path in paths), []
        for path in sorted(paths, key=_mtime):
            if total <= self.limit:
                break
            bytes_ = size(path)
            if remove(path):
                total -= bytes_
                removed.append(path)
        return removed


@dataclass
class CachePartition:
    """The shards of one setting, as one process sees them.

    Attributes:
        folder: Where they lie.
        settings: What they were decoded with.
        limit: Bytes; a larger shard is used but not kept.
        note: Told of what was damaged or waited for.
        shards: Those that are open.
    """

    folder: Path
    settings: Settings
    limit: float
    note: Note
    shards: dict[Path, Shard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._damaged: set[Path] = set()
        self._rows: dict[str, Shard] = {}
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Open the shards that are new since the last look."""
        try:
            self._is_described()
            paths = sorted(self.folder.glob("*" + SUFFIX))
        except (OSError, Later):
            paths = []
        for path in paths:
            if path not in self.shards and path not in self._damaged:
                try:
                    shard = Shard.open(path)
                except Damaged as error:
                    self.distrust(path, str(error))
                except FileNotFoundError:
                    continue
                else:
                    self.shards[path] = shard
                    self._rows.update(dict.fromkeys(shard.rows, shard))

    def _is_described(self) -> bool:
        """Whether settings.json can be read.

        Raises:
            Later: If a later rekindle wrote it, whose pictures are left alone.
        """
        path = self.folder / SETTINGS
        try:
            return path.exists() and bool(CACHE.read(path))
        except Later:
            raise
        except Unreadable as error:
            self.note(str(error))
            return False

    def get(self, digest: str) -> Shard | None:
        """The shard that holds a picture, whole; None if there is none. Many threads may ask.

        Returns:
            A mapped shard that holds the picture whole, or None.
        """
        shard = self._rows.get(digest)
        if shard is None or self.distrusts(shard):
            return None
        if shard.path is not None and not shard.is_whole(digest):
            self.distrust(shard.path, "a checksum does not fit")
            return None
        return shard

    def distrusts(self, shard: Shard) -> bool:
        """Whether a shard was found damaged.

        Returns:
            True where its bytes were not those that were written.
        """
        return shard.path in self._damaged

    def distrust(self, path: Path, why: str) -> None:
        """Use nothing of a shard any more; the next `writing` removes it."""
        with self._lock:
            known = path in self._damaged
            self._damaged.add(path)
        if not known:
            self.note(f"the cache file {path} is damaged ({why}); its pictures are decoded again.")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the one process that writes here; wait for another to finish, then see what it made.

        Yields:
            Once this process is the only one that writes.

        Raises:
            Unusable: If the folder cannot be written.
        """
        waiting = f"another process is filling the cache {self.folder}; waiting for it."
        with ExitStack() as held:
            with _unusable():
                held.enter_context(locked(self.folder / LOCK, waiting=waiting, note=self.note, required=True))
                for partial in self.folder.glob("*" + PARTIAL):
                    partial.unlink(missing_ok=True)
                remove_temporaries(self.folder)
                self._remove_damaged()
                if not self._is_described():
                    CACHE.write(self.folder / SETTINGS, asdict(self.settings))
            self.refresh()
            yield

    def _remove_damaged(self) -> None:
        for path in self._damaged:
            # A reader's mapping outlives the name, so this harms nobody.
            path.unlink(missing_ok=True)
            self.shards.pop(path, None)
        self._damaged.clear()
        self._rows = {digest: shard for shard in self.shards.values() for digest in shard.rows}

    @contextmanager
    def sink(self) -> "Iterator[ShardSink]":
        """Where to put decoded pictures; inside `writing` only. What is not finished is removed.

        Yields:
            A sink; its file is removed unless it was finished.

        Raises:
            Unusable: If the file cannot be written.
        """
        made = ShardSink(self)
        try:
            yield made
        finally:
            made.abandon()

    def adopt(self, shard: Shard) -> None:
        """Look pictures up in a new shard too."""
        self._rows.update(dict.fromkeys(shard.rows, shard))
        if shard.path is not None:
            self.shards[shard.path] = shard


def touch(shards: Iterable[Shard | None]) -> None:
    """Remember that these were used now."""
    for path in {shard.path for shard in shards if shard is not None and shard.path is not None}:
        with suppress(OSError):
            os.utime(path)


class ShardSink:
    """Collects decoded pictures in a `.partial` file that becomes a shard when it is whole."""

    def __init__(self, shelf: CachePartition) -> None:
        self._shelf = shelf
        # No name is used twice: a process that saw an older file damaged must not remove the one that took its place.
        self._partial = shelf.folder / (uuid.uuid4().hex[:16] + PARTIAL)
        with _unusable():
            self._partial.touch(exist_ok=False)
            self._writer = ShardWriter(self._partial)

    def add(self, digest: str, image: np.ndarray) -> None:
        """Add one picture; many threads may.

        Raises:
            Unusable: If it cannot be written.
        """
        with _unusable():
            self._writer.add(digest, image)

    def finish(self) -> Shard:
        """Give the file its name and open it. One that exceeds the limit gets none, and goes when this process ends.

        Returns:
            The file, mapped for reading.

        Raises:
            Unusable: If it cannot be written.
        """
        path = self._partial.with_suffix(SUFFIX)
        with _unusable():
            self._writer.close()
            if size(self._partial) > self._shelf.limit:
                shard = Shard.open(self._partial)
                self._partial.unlink()
                self._shelf.note(
                    f"{number_of(len(shard.rows), 'decoded picture', 'exceeds')} the cache's limit of {self._shelf.limit / GB:g} GB (REKINDLE_CACHE_GB), "
                    "so they are not kept."
                )
                shard.path = None
            else:
                os.replace(self._partial, path)
                shard = Shard.open(path)
        self._shelf.adopt(shard)
        return shard

    def abandon(self) -> None:
        """Remove the file, if it has not become a shard."""
        with suppress(OSError):
            self._writer.abandon()
        with suppress(OSError):
            self._partial.unlink()


@contextmanager
def _unusable() -> Iterator[None]:
    """Turn what a disk may say into `Unusable`."""
    try:
        yield
    except OSError as error:
        raise Unusable(error.strerror or str(error)) from None
    except NoLocks:
        raise Unusable("its file system has no locks") from None
    except (Damaged, Later) as error:
        raise Unusable(str(error)) from None


def _folders(root: Path) -> list[Path]:
    """Folders of settings, sorted."""
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError:
        return []


def _described(folder: Path) -> dict[str, Any]:
    """What settings.json says, or nothing where it was not written."""
    try:
        return CACHE.read(folder / SETTINGS)
    except Unreadable:
        return {}


@contextmanager
def _lock_if_free(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock, or say that another process does or that there is none."""
    with ExitStack() as held:
        try:
            mine = held.enter_context(locked(folder / LOCK, required=True))
        except (NoLocks, OSError):
            mine = False
        yield mine


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
