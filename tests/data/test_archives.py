"""Archives: unpacked whole, or one sentence and nothing on the disk."""

import errno
import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rekindle.data.tasks.archives import BadArchive, extract, is_archive
from rekindle.errors import UserError

CONTENT = {"a/one.jpg": b"1" * 1000, "a/b/two.jpg": b"2" * 2000, "three.txt": b"3"}


def tar(path: Path, mode: str = "w:gz", **members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in CONTENT.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for member in members.values():
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def zipped(path: Path, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**CONTENT, **more}.items():
            file.writestr(name, content)
    return path


def listed(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(archive: Path, expected: str) -> None:
    """It is refused with a sentence that names it, and nothing appears inside or outside the folder."""
    base = archive.parent
    before = sorted(base.rglob("*"))
    with pytest.raises(BadArchive) as caught:
        extract(archive, base / "out" / "in")
    message = str(caught.value)
    assert str(archive) in message and expected in message and message.endswith(".") and "\n" not in message
    (base / "out").rmdir()
    assert sorted(base.rglob("*")) == before


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tgz", "w:gz"), ("x.tar.bz2", "w:bz2"), ("x.tar.xz", "w:xz")])
def test_a_tar_comes_out_as_it_went_in(name: str, mode: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    extract(tar(tmp_path / name, mode), tmp_path / "out", lambda done, total: told.append((done, total)))
    assert listed(tmp_path / "out") == CONTENT
    assert told and all(0 < done <= total == (tmp_path / name).stat().st_size for done, total in told)


def test_a_zip_comes_out_as_it_went_in(tmp_path: Path) -> None:
    extract(zipped(tmp_path / "x.zip"), tmp_path / "out")
    assert listed(tmp_path / "out") == CONTENT


def test_an_archive_is_known_by_its_bytes(tmp_path: Path) -> None:
    extract(zipped(tmp_path / "x.tgz"), tmp_path / "out")
    assert listed(tmp_path / "out") == CONTENT


@pytest.mark.parametrize("name", ["../outside.jpg", "a/../../outside.jpg", "a\\..\\..\\outside.jpg"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_that_lead_out(name: str, kind: str, tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tgz", bad=member(name, size=3)) if kind == "tar" else zipped(tmp_path / "x.zip", **{name: b"bad"})
    refused(archive, "leads out of its folder")


@pytest.mark.parametrize("name", ["/tmp/absolute.jpg", "C:\\absolute.jpg", "\\\\host\\share\\absolute.jpg"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_absolute_members(name: str, kind: str, tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tgz", bad=member(name, size=3)) if kind == "tar" else zipped(tmp_path / "x.zip", **{name: b"bad"})
    refused(archive, "absolute path")
    assert not Path("/tmp/absolute.jpg").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd"])
def test_links_that_lead_out(kind: bytes, target: str, tmp_path: Path) -> None:
    refused(tar(tmp_path / "x.tgz", bad=member("a/link", kind, target)), "not safe to unpack")


def test_a_device_is_refused(tmp_path: Path) -> None:
    refused(tar(tmp_path / "x.tgz", bad=member("a/null", tarfile.CHRTYPE)), "not safe to unpack")


def test_links_inside_are_not_made_and_nothing_is_written_through_them(tmp_path: Path) -> None:
    through = member("door/three.txt", size=5)
    extract(tar(tmp_path / "x.tgz", link=member("door", tarfile.SYMTYPE, "a"), through=through), tmp_path / "out")
    assert listed(tmp_path / "out") == {**CONTENT, "door/three.txt": b"xxxxx"}
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_a_link_in_a_zip_is_not_made(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "x.zip")
    with zipfile.ZipFile(archive, "a") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    extract(archive, tmp_path / "out")
    assert listed(tmp_path / "out") == CONTENT


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekindle.data.tasks.archives.FLOOR", 2**20)
    with open(tmp_path / "zeros", "wb") as zeros:
        zeros.truncate(20 * 2**20)
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as file:
        file.add(tmp_path / "zeros", "zeros.jpg")
    zipped(tmp_path / "x.zip", **{"zeros.jpg": bytes(20 * 2**20)})
    assert max((tmp_path / name).stat().st_size for name in ("x.tgz", "x.zip")) < 50_000
    (tmp_path / "zeros").unlink()
    refused(tmp_path / "x.tgz", "a bomb?")
    refused(tmp_path / "x.zip", "a bomb?")


def test_a_member_that_declares_terabytes(tmp_path: Path) -> None:
    info = member("huge.jpg", size=10 * 2**40)
    with gzip.open(tmp_path / "x.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000))
    refused(tmp_path / "x.tgz", "'huge.jpg'")


def test_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekindle.data.tasks.archives.MEMBERS", 2)
    refused(tar(tmp_path / "x.tgz"), "3 files")


@pytest.mark.parametrize(
    "make", [lambda path: tar(path / "x.tgz"), lambda path: tar(path / "x.tar", "w"), lambda path: zipped(path / "x.zip")]
)
@pytest.mark.parametrize("share", [0.1, 0.64])
def test_a_cut_archive(make: Callable[[Path], Path], share: float, tmp_path: Path) -> None:
    archive = make(tmp_path)
    content = archive.read_bytes()
    size = len(content) if archive.suffix != ".tar" else 5120  # Without the padding at a tar's end.
    archive.write_bytes(content[: int(size * share)])
    refused(archive, "cut")


def test_a_damaged_zip(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "x.zip", noise=os.urandom(5000))
    content = bytearray(archive.read_bytes())
    place = content.index(b"noise") + 2000
    content[place : place + 50] = bytes(50)
    archive.write_bytes(bytes(content))
    refused(archive, "damaged")


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "empty"), (b"\n <!DOCTYPE html><html>", "web page"), (b"\x00\x01" * 600, "neither tar nor zip")]
)
def test_what_is_no_archive(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(content)
    refused(tmp_path / "x.tgz", what)


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "x.zip")
    content = bytearray(archive.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    archive.write_bytes(bytes(content))
    refused(archive, "encrypted")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar(tmp_path / "x.tgz")
    written = []

    def write(source: object, target: object, length: int | None = None, *rest: object) -> None:
        written.append(length)
        if len(written) == 2:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tarfile, "copyfileobj", write)
    with pytest.raises(UserError, match="no room in .*free some"):
        extract(archive, tmp_path / "out")
    assert len(written) == 2 and sorted(tmp_path.iterdir()) == [archive]


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(UserError, match="no room in .*free some"):
            extract(tar(tmp_path / "x.tgz", big=member("big.jpg", size=200_000)), disk / "out")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_endings() -> None:
    assert all(map(is_archive, ("a.tar", "a.tgz", "A.TAR.GZ", "a.zip")))
    assert not any(map(is_archive, ("setid.mat", "TrainImages.txt", "tar")))
