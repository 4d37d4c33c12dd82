"""Archives unpacked whole or not at all, and nothing of them outside the folder.

The standard library's own filter judges each member; what it lets pass silently (absolute names, links, sizes) is judged here first.
Links are never made: no official archive needs one, and a chain of them is how filters have been fooled.
"""

import errno
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath

from rekindle.errors import UserError, number_of

ENDINGS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip")
FLOOR = 64 * 2**20  # An archive may always hold this many bytes,
RATIO = 50  # and this many times its own size: pictures hardly shrink, so more is a bomb.
MEMBERS = 2_000_000
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Progress = Callable[[int, int], None]


class BadArchive(UserError):
    """An archive that is cut, damaged or hostile; nothing of it is left on the disk."""


def is_archive(name: str) -> bool:
    """Whether a name ends as an archive's does.

    Returns:
        True for .zip, .tar, .tgz and their like.
    """
    return name.lower().endswith(ENDINGS)


def extract(archive: Path, into: Path, progress: Progress | None = None) -> None:
    """Unpack a tar (plain or compressed) or zip archive into a folder that does not exist yet.

    Args:
        archive: The file.
        into: Appears when everything is unpacked, and only then.
        progress: Told of (bytes of the archive read, all its bytes).

    Raises:
        BadArchive: If it is no archive, cut, damaged, encrypted, a bomb, or has a member that leads outside; it names the member.
        UserError: If the disk is full.
    """
    temporary = into.with_name(f".{into.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with room(temporary):
            temporary.mkdir(parents=True)
            unpack = _unpack_tar if _is_tar(archive) else _unpack_zip if zipfile.is_zipfile(archive) else _refuse
            unpack(archive, temporary, progress or _silent)
            os.replace(temporary, into)
    except (EOFError, zlib.error, LZMAError, tarfile.TarError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BadArchive(f"{archive} is cut or damaged ({error}); get it again.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a full quota, into a sentence.

    Yields:
        Nothing; a full disk inside ends in a `UserError`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"no room in {folder.parent} ({error.strerror}); free some, or choose a larger disk with --root or REKINDLE_HOME."
        ) from None


def _is_tar(archive: Path) -> bool:
    try:
        return tarfile.is_tarfile(archive)
    except (EOFError, zlib.error, LZMAError):
        # Compressed, and cut before the first member: let the reader say so.
        return True


def _unpack_tar(archive: Path, into: Path, progress: Progress) -> None:
    size = archive.stat().st_size
    budget = _Budget(archive, size)
    with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            _check_name(archive, member.name)
            try:
                tarfile.data_filter(member, str(into))
            except tarfile.FilterError as error:
                raise BadArchive(f"{archive} is not safe to unpack: {error}.") from None
            if member.isdir() or member.isreg():
                budget.spend(member.name, member.size)
                tar.extract(member, into, set_attrs=False, filter="data")
            progress(raw.tell(), size)


def _unpack_zip(archive: Path, into: Path, progress: Progress) -> None:
    size = archive.stat().st_size
    budget = _Budget(archive, size)
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            _check_name(archive, info.filename)
            if info.flag_bits & 1:
                raise BadArchive(f"{archive} is encrypted ({info.filename}); unlock it and pack it again.")
            budget.spend(info.filename, info.file_size)
            if not stat.S_ISLNK(info.external_attr >> 16):
                file.extract(info, into)
            progress(info.header_offset + info.compress_size, size)


def _refuse(archive: Path, into: Path, progress: Progress) -> None:
    raise BadArchive(f"{archive} is no archive that can be read: {what_it_is(archive)}; get it again.")


def what_it_is(path: Path) -> str:
    """What a file that should be an archive seems to be.

    Returns:
        Words such as "a web page", for a sentence.
    """
    with open(path, "rb") as file:
        head = file.read(1024)
    if not head:
        return "it is empty"
    return "it is a web page" if looks_like_a_page(head) else "neither tar nor zip, or cut at its end"


def looks_like_a_page(head: bytes) -> bool:
    """Whether a file's first bytes are those of HTML or XML.

    Returns:
        True where a server sent a page in the place of a file.
    """
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _check_name(archive: Path, name: str) -> None:
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        raise BadArchive(f"{archive} is not safe to unpack: member {name!r} has an absolute path.")
    if ".." in name.replace("\\", "/").split("/"):
        raise BadArchive(f"{archive} is not safe to unpack: member {name!r} leads out of its folder.")


class _Budget:
    """Adds up what members say they hold, before any of it is written."""

    def __init__(self, archive: Path, size: int) -> None:
        self._archive, self._limit = archive, max(FLOOR, RATIO * size)
        self._bytes = self._members = 0

    def spend(self, name: str, size: int) -> None:
        self._bytes, self._members = self._bytes + size, self._members + 1
        if self._bytes > self._limit or self._members > MEMBERS:
            raise BadArchive(
                f"{self._archive} is not safe to unpack: at member {name!r} it holds {number_of(self._members, 'file')} of "
                f"{self._bytes / 2**20:.0f} MiB in all, "
                f"more than the {self._limit / 2**20:.0f} MiB that an archive of its size may (a bomb?)."
            )


def _silent(done: int, total: int) -> None:
    pass
