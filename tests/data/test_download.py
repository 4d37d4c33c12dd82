"""Downloads from a server with every fault: the file, or a reason for each address and nothing half there."""

import errno
import hashlib
import os
import random
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from rekindle.data.tasks import download
from rekindle.data.tasks.download import Failed, fetch
from rekindle.errors import UserError
from tests.data.faulty_server import PAGE, Served, Server, serving

CONTENT = b"\x1f\x8b" + random.Random(0).randbytes(3_000_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
NAME = "pictures.tgz"
DEAD = "http://127.0.0.1:9/pictures.tgz"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "WAIT", 0.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({NAME: Served(CONTENT)}) as found:
        yield found


def left(folder: Path) -> list[str]:
    """What lies there, apart from locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def failure(server: Server, folder: Path, *urls: str, known: str = MD5) -> str:
    with pytest.raises(Failed) as caught:
        fetch(NAME, urls or (server.url(NAME),), known, folder)
    assert len(caught.value.reasons) == len(urls or (1,))
    return str(caught.value)


def test_a_file_is_fetched_and_its_progress_told(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path, url = fetch(NAME, [server.url(NAME)], MD5, tmp_path / "new" / "folder", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == CONTENT and url == server.url(NAME)
    assert left(path.parent) == [NAME]
    assert told == sorted(told) and told[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_here_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT)
    assert fetch(NAME, [server.url(NAME)], MD5, tmp_path) == (tmp_path / NAME, "")
    assert server.requests == []


def test_a_damaged_file_that_is_here_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    fetch(NAME, [server.url(NAME)], MD5, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "fault",
    [Served(status=404), Served(status=503), Served(PAGE), Served(CONTENT[::-1]), Served(CONTENT, cut=0.64, ranges=False), Served(b"")],
)
def test_after_a_faulty_mirror_comes_the_next(fault: Served, server: Server, tmp_path: Path) -> None:
    server.files["bad"] = fault
    path, url = fetch(NAME, [DEAD, server.url("bad"), server.url(NAME)], MD5, tmp_path)
    assert path.read_bytes() == CONTENT and url == server.url(NAME)
    assert left(tmp_path) == [NAME]


def test_a_dead_mirror(server: Server, tmp_path: Path) -> None:
    assert f"{DEAD}: no connection" in failure(server, tmp_path, DEAD)
    assert left(tmp_path) == []


def test_a_missing_file(server: Server, tmp_path: Path) -> None:
    assert "the server answers 404 Not Found" in failure(server, tmp_path, server.url("elsewhere"))
    assert left(tmp_path) == []


@pytest.mark.parametrize("page", [Served(PAGE), Served(PAGE, kind="text/html; charset=utf-8"), Served(b"Quota exceeded", kind="text/html")])
@pytest.mark.parametrize("known", [MD5, ""])
def test_a_web_page_instead_of_the_file(page: Served, known: str, server: Server, tmp_path: Path) -> None:
    server.files[NAME] = page
    assert "a web page instead of the file" in failure(server, tmp_path, known=known)
    assert left(tmp_path) == []


def test_a_wrong_hash(server: Server, tmp_path: Path) -> None:
    server.files[NAME].content = CONTENT[::-1]
    message = failure(server, tmp_path)
    assert MD5[4:] in message and hashlib.md5(CONTENT[::-1]).hexdigest() in message
    assert left(tmp_path) == []


def test_cut_at_64_percent_and_resumed_by_range(server: Server, tmp_path: Path) -> None:
    server.files[NAME].cut, server.files[NAME].cuts = 0.64, 1
    fetch(NAME, [server.url(NAME)], MD5, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT and left(tmp_path) == [NAME]
    (_, first), (_, second) = server.requests
    assert first is None and second is not None
    start = int(second.removeprefix("bytes=").rstrip("-"))
    assert 0.64 * len(CONTENT) - download.CHUNK <= start <= 0.64 * len(CONTENT)


def test_cut_again_and_again_but_always_further(server: Server, tmp_path: Path) -> None:
    server.files[NAME].cut, server.files[NAME].cuts = 0.4, 5
    fetch(NAME, [server.url(NAME)], MD5, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT and len(server.requests) == 6


def test_cut_for_good_by_a_server_without_ranges_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.files[NAME].cut, server.files[NAME].ranges = 0.64, False
    message = failure(server, tmp_path)
    assert "the connection broke after" in message and f"of {len(CONTENT)} bytes (6" in message
    assert left(tmp_path) == [] and len(server.requests) == 2


def test_a_server_that_dies_in_the_middle_lets_the_same_command_go_on(server: Server, tmp_path: Path) -> None:
    served = server.files[NAME]

    def dies(done: int, total: int) -> None:
        if done > 0.5 * total:
            served.status = 503

    served.cut, served.cuts = 0.64, 1
    with pytest.raises(Failed, match="answers 503 .* are kept, and the same command goes on from there"):
        fetch(NAME, [server.url(NAME)], MD5, tmp_path, dies)
    assert left(tmp_path) == [f".{NAME}.partial"]
    served.status = 200
    fetch(NAME, [server.url(NAME)], MD5, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT and left(tmp_path) == [NAME]
    assert server.requests[-1][1] == server.requests[-2][1] is not None


def test_cut_without_a_length_is_seen_by_the_hash(server: Server, tmp_path: Path) -> None:
    server.files[NAME].cut, server.files[NAME].length = 0.64, False
    assert "does not match the known hash" in failure(server, tmp_path)
    assert left(tmp_path) == []


def test_a_later_command_goes_on_with_what_a_killed_one_left(server: Server, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, [server.url(NAME)], MD5, tmp_path, stop)
    assert left(tmp_path) == [f".{NAME}.partial"]
    fetch(NAME, [DEAD, server.url(NAME)], MD5, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT and left(tmp_path) == [NAME]
    assert int((server.requests[-1][1] or "").removeprefix("bytes=").rstrip("-")) > 1_900_000


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Server, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, [server.url(NAME)], "", tmp_path, stop)
    new = CONTENT[::-1]
    server.files[NAME].content, server.files[NAME].version = new, '"two"'
    fetch(NAME, [server.url(NAME)], "", tmp_path)
    assert (tmp_path / NAME).read_bytes() == new


def test_a_full_disk(server: Server, tmp_path: Path) -> None:
    def full(done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="no room in .*free some"):
        fetch(NAME, [server.url(NAME)], MD5, tmp_path, full)
    assert left(tmp_path) == []


def test_a_disk_that_is_too_small_is_told_before_the_download(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 2**20, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=f"{NAME} needs 3 MiB more and 1 MiB are free"):
        fetch(NAME, [server.url(NAME)], MD5, tmp_path)
    assert left(tmp_path) == []


def test_two_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.files[NAME].pause = 0.01
    notes: list[str] = []
    threads = [threading.Thread(target=fetch, args=(NAME, [server.url(NAME)], MD5, tmp_path, None, notes.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert (tmp_path / NAME).read_bytes() == CONTENT and len(server.requests) == 1
    assert notes == [f"another process is fetching {NAME}; waiting for it."]
