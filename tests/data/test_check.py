"""Data are checked before training: everything that is broken is named, everything odd is said."""

import base64
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rekindle import cli
from rekindle.data.cache.decode import Undecodable, decode
from rekindle.data.check import check
from rekindle.errors import UserError
from rekindle.report.data_page import write_data_page

from .pictures import jpeg, write
from .test_folders import each_says, says, touch


def saved(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]


def noise(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def break_ten(files: list[Path]) -> list[Path]:
    """Ten pictures broken in ten ways; where they lie afterwards."""
    cut, empty, page, text, zeros, float_, ending, link, absurd, header = files
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 3])
    empty.write_bytes(b"")
    page.write_bytes(b"<!doctype html><title>404 Not Found</title>")
    text.write_bytes(b"this is no picture, by any means")
    zeros.write_bytes(bytes(zeros.stat().st_size))
    noise(0).convert("F").save(float_, "TIFF")
    moved = ending.rename(ending.with_suffix(".heic"))
    link.unlink()
    link.symlink_to("gone.jpg")
    noise(0, (900, 4)).save(absurd, "JPEG")
    header.write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(500))
    return [cut, empty, page, text, zeros, float_, moved, link, absurd, header]


def test_ten_photographs_broken_on_purpose_are_all_named(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "clothing"
    for split in ("train", "validation", "test"):
        for folder in sorted((shared / "data/clothing" / split).iterdir()):
            (root / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:6]:
                shutil.copyfile(path, root / split / folder.name / path.name)
    assert cli.main(["data", "check", str(root)]) == 0
    assert says(capsys.readouterr().out, root, "ready")
    broken = break_ten(sorted(root.rglob("*.jpg"))[::18][:10])
    assert cli.main(["data", "check", str(root), "--html", str(tmp_path / "page.html")]) == 1
    told, page = capsys.readouterr().out, (tmp_path / "page.html").read_text("utf-8")
    for path in broken:
        assert path.relative_to(root).as_posix() in told and path.relative_to(root).as_posix() in page
    assert says(told, root, "10", "mend") and says(page, "10 problems")
    found = check(root)
    assert len(found.problems) + len(found.unreadable) == 10 and not found.usable
    for name in found.unreadable:
        with pytest.raises(Undecodable):
            decode(root / name, 224)


def test_facts_of_every_kind_of_picture(tmp_path: Path) -> None:
    for label in ("a", "b"):
        saved(tmp_path / label / "rgb.jpg", noise(ord(label)))
        saved(tmp_path / label / "grey.png", noise(2 + ord(label)).convert("L"))
        saved(tmp_path / label / "palette.gif", noise(4 + ord(label)).convert("P"))
    saved(tmp_path / "a/cmyk.jpg", noise(7).convert("CMYK"))
    saved(tmp_path / "a/alpha.png", noise(8).convert("RGBA"))
    saved(tmp_path / "a/deep.png", Image.fromarray(np.arange(2000, dtype=np.uint16).reshape(40, 50)))
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "a/turned.jpg", noise(9, (60, 30)), exif=exif.tobytes())
    saved(tmp_path / "b/moving.gif", noise(10), save_all=True, append_images=[noise(11)])
    found = check(tmp_path)
    assert found.usable and found.taken == ["val", "test"]
    assert found.modes == {"RGB": 3, "P": 3, "L": 2, "CMYK": 1, "RGBA": 1, "I;16": 1}
    assert found.formats == {"JPEG": 4, "PNG": 4, "GIF": 3}
    assert found.rotated == 1 and found.animated == 1
    assert found.sizes == {"width": (30, 50, 50), "height": (40, 40, 60), "shorter edge": (30, 40, 40)}
    assert found.counts == {"train": {"a": 7, "b": 4}}


def test_repeated_pictures(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 11)):
        for number, label in enumerate(("a", "b")):
            for index in range(count):
                saved(tmp_path / split / label / f"{index}.png", noise(1000 * (split == "test") + 100 * number + index))
    train, test = tmp_path / "train", tmp_path / "test"
    shutil.copyfile(train / "a/0.png", test / "a/leak.png")
    shutil.copyfile(train / "a/1.png", train / "a/again.png")
    shutil.copyfile(train / "a/2.png", train / "b/unlike.png")
    saved(test / "b/other.bmp", Image.open(train / "b/3.png"))
    found = check(tmp_path)
    assert found.usable
    assert found.across == [["train/a/0.png", "test/a/leak.png"]]
    assert found.within == [["train/a/1.png", "train/a/again.png"], ["train/a/2.png", "train/b/unlike.png"]]
    assert found.contradictions == [["train/a/2.png", "train/b/unlike.png"]]
    assert found.alike == [["train/b/3.png", "test/b/other.bmp"]]
    said = "\n".join(found.suspicious)
    assert says(said, "1", "labels", "train/a/2.png", "train/b/unlike.png")
    assert says(said, "1", "splits", "train/a/0.png", "test/a/leak.png", "accuracy")
    assert says(said, "1", "splits", "bytes", "train/b/3.png", "test/b/other.bmp")


def test_splits_that_look_odd(tmp_path: Path) -> None:
    made = 0
    for label, train, test in (("Shirt", 40, 60), ("shirt", 4, 2), ("t-shirt", 20, 2)):
        for split, count in (("train", train), ("test", test)):
            for index in range(count):
                made += 1
                saved(tmp_path / split / label / f"{index}.png", noise(made, (24, 24)))
    said = "\n".join(check(tmp_path).suspicious)
    assert "larger" not in said
    assert says(said, "unbalanced", "4 pictures", "shirt", "40", "Shirt", "train")
    assert says(said, "1", "10 training pictures", "shirt (4)")
    assert says(said, "Shirt and shirt", "one")
    assert says(said, "128 pictures", "32 pixels")
    shutil.copyfile(tmp_path / "test/Shirt/0.png", tmp_path / "test/Shirt/new.png")
    assert says("\n".join(check(tmp_path).suspicious), "test", "larger", "train", "65", "64")


def test_what_was_left_out_and_classes_too_small_to_divide(tmp_path: Path) -> None:
    for label, count in (("a", 5), ("b", 2)):
        write(tmp_path / label, count)
    touch(tmp_path, "a/.DS_Store", "readme.md")
    found = check(tmp_path)
    assert each_says(found.problems, ("class b", "2", "at least 3"))
    assert any(".DS_Store" in note for note in found.notes) and any("readme.md" in note for note in found.notes)


def test_more_broken_files_than_a_message_lists_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, *(f"{label}/{number}.jpg" for label in "ab" for number in range(60)))
    assert cli.main(["data", "check", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert all(says(told, f"{label}/{number}.jpg", "empty") for label in "ab" for number in range(60))


def test_json_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [jpeg(number) for number in range(29)] + [b"broken"]
    pq.write_table(pa.table({"scan": pa.array(data, pa.binary()), "kind": ["x", "y", "<z>"] * 10}), tmp_path / "all.parquet")
    assert cli.main(["data", "check", str(tmp_path / "all.parquet"), "--label-column", "kind", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False and list(found["unreadable"]) == ["all.parquet[29]"]
    assert found["counts"] == {"train": {"<z>": 10, "x": 10, "y": 10}} and found["classes"] == ["<z>", "x", "y"]
    assert len(found["samples"]["x"]) == 6 and "pictures" not in found


def test_the_page_stands_alone_and_escapes_names(tmp_path: Path) -> None:
    write(tmp_path / "data/<b>bold", 12)
    write(tmp_path / "data/plain", 12)
    write_data_page(tmp_path / "page.html", check(tmp_path / "data"))
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "&lt;b&gt;bold" in page and "<b>bold" not in page and "<script" not in page
    assert set(re.findall(r'(?:src|href)="([^:"]*):', page)) == {"data"}
    thumbs = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(thumbs) == 12
    assert min(Image.open(io.BytesIO(base64.b64decode(thumbs[0]))).size) == 112


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\b.*exist"):
        check(tmp_path / "gone")
    assert cli.main(["data", "check", str(tmp_path / "gone")]) == 2
