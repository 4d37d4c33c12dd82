"""All pictures decoded once: equal to decoding each alone, and every broken one named."""

import hashlib
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rekindle.data import Dataset, Pixels, Split, duplicates
from rekindle.data.cache.decode import decode
from rekindle.errors import UserError


def pictures(root: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        paths.append(root / f"{index}.png")
        Image.fromarray(rng.integers(0, 256, (20 + 3 * index, 50 - index, 3), dtype=np.uint8)).save(paths[-1])
    return paths


@pytest.mark.parametrize("threads", [1, 4, None])
def test_each_picture_is_what_decode_gives(threads: int | None, tmp_path: Path) -> None:
    paths = pictures(tmp_path, 12)
    found = Pixels.load(paths, 16, "bicubic", threads=threads)
    assert len(found) == 12
    for index, path in enumerate(paths):
        alone = decode(path, 16, "bicubic")
        assert (found[index] == alone).all()
        assert tuple(found.shapes[index]) == alone.shape[:2]
        assert found.hashes[index] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_pictures_are_read_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        Pixels.load(pictures(tmp_path, 1), 16)[0][0] = 1


def test_no_pictures(tmp_path: Path) -> None:
    assert len(Pixels.load([], 16)) == 0


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path, 3)
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    found = Pixels.load(paths, 16)
    assert found[2].any()
    assert list(place.iterdir()) == []


def test_progress_is_told_in_order_in_this_thread(tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []
    Pixels.load(pictures(tmp_path, 5), 16, progress=lambda done: told.append((done, threading.current_thread() is threading.main_thread())))
    assert told == [(done, True) for done in range(1, 6)]


def test_every_broken_file_is_named_with_its_reason(tmp_path: Path) -> None:
    good = pictures(tmp_path, 4)
    whole = good[0].read_bytes()
    broken = {
        "empty.jpg": (b"", "the file is empty"),
        "text.png": (b"hello", "not a picture that Pillow knows, or a damaged one"),
        "page.gif": (b"<html>", "a web page, SVG or other text with tags, not pixels"),
        "short.webp": (whole[: len(whole) // 2], "image file is truncated"),
    }
    for name, (data, _) in broken.items():
        (tmp_path / name).write_bytes(data)
    Image.new("L", (1, 3000)).save(tmp_path / "thin.png")
    paths = [good[0], *(tmp_path / name for name in broken), *good[1:], tmp_path / "thin.png", tmp_path / "gone.bmp"]
    with pytest.raises(UserError) as caught:
        Pixels.load(paths, 16)
    head, *lines = str(caught.value).splitlines()
    assert head == "6 images cannot be read; repair or remove, then start again:"
    wanted = {
        **{name: why for name, (_, why) in broken.items()},
        "thin.png": "1 x 3000 pixels: one side is more than 50 times the other",
        "gone.bmp": "No such file or directory",
    }
    assert len(lines) == len(wanted)
    for line, (name, why) in zip(lines, wanted.items(), strict=True):
        assert line.startswith(f"  {tmp_path / name}: {why}")


def test_one_broken_file_is_one_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^1 image cannot be read; repair or remove"):
        Pixels.load([tmp_path / "gone.png"], 16)


def test_a_long_list_of_broken_files_is_cut_but_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Pixels.load([tmp_path / f"{index}.png" for index in range(60)], 16)
    lines = str(caught.value).splitlines()
    assert len(lines) == 52
    assert lines[-1] == "  and 10 more"


def test_a_full_disk_is_told_and_stops_the_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on file sizes stands in for a full disk: the write that crosses it is cut short, the next one fails."""
    paths = pictures(tmp_path, 45)
    decoded = []
    monkeypatch.setattr("rekindle.data.cache.pixels.decode", lambda *arguments: decoded.append(0) or decode(*arguments))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"^no room for decoded pictures in .* \(.*\); free some, or set TMPDIR to a larger disk\.$"):
            Pixels.load(paths, 40, threads=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(decoded) < 40


def test_an_interrupted_caller_stops_the_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr("rekindle.data.cache.pixels.decode", lambda *arguments: decoded.append(0) or decode(*arguments))

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pixels.load(pictures(tmp_path, 45), 40, threads=1, progress=interrupt)
    assert len(decoded) < 40


def test_a_wrong_interpolation_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^interpolation must be one of"):
        Pixels.load(pictures(tmp_path, 3), 16, "cubic")


def test_content_hash_follows_content_not_order_or_place(tmp_path: Path) -> None:
    first = Pixels.load(pictures(tmp_path, 3), 16)
    (tmp_path / "elsewhere").mkdir()
    moved = Pixels.load(pictures(tmp_path / "elsewhere", 3)[::-1], 30)
    base = first.content_hash(["a", "b", "c"], [0, 1, 1])
    assert moved.content_hash(["c", "b", "a"], [1, 1, 0]) == base
    assert len(base) == 64
    assert (
        len(
            {
                base,
                first.content_hash(["a", "b", "d"], [0, 1, 1]),
                first.content_hash(["a", "b", "c"], [0, 1, 0]),
                moved.content_hash(["a", "b", "c"], [0, 1, 1]),
            }
        )
        == 4
    )


def test_content_hash_is_a_literal() -> None:
    """It names runs: were it to change, finished runs would be trained again."""
    pixels = Pixels(np.empty(0, np.uint8), np.zeros(2, np.int64), np.zeros((2, 2), np.int64), ["00", "ff"])
    wanted = hashlib.sha256(b"train/a/x.jpg\x1f0\x1f00\x1etrain/\xc3\xbc/y.jpg\x1f1\x1fff").hexdigest()
    assert pixels.content_hash(["train/a/x.jpg", "train/ü/y.jpg"], [0, 1]) == wanted


def test_duplicates_are_pairs_across_splits_only() -> None:
    root = Path("/data")

    def split(name: str, count: int) -> Split:
        return Split([root / name / f"{index}.jpg" for index in range(count)], torch.zeros(count, dtype=torch.int64))

    dataset = Dataset(root, ["a"], {"train": split("train", 3), "val": split("val", 3), "test": split("test", 2)})
    assert duplicates(dataset, ["1", "2", "2", "3", "2", "4", "4", "1"]) == [
        ("train/1.jpg", "val/1.jpg"), ("val/2.jpg", "test/0.jpg"), ("train/0.jpg", "test/1.jpg"),
    ]  # fmt: skip
    assert duplicates(dataset, list("12345678")) == []
