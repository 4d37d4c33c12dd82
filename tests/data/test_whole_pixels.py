"""A picture whose pixels are whole is read, whatever describes it; what no picture can be is refused without waiting for it."""

import json
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from rekindle import cli
from rekindle.data import Pixels, Undecodable, decode, open_data
from rekindle.data.cache.decode import inspect
from rekindle.data.cache.metadata import without_metadata
from rekindle.data.check import check
from rekindle.fitting.setup import dark

from .pictures import write
from .test_check import noise
from .test_decode import coded
from .test_folders import says, touch

KINDS = ["JPEG", "PNG", "WEBP", "TIFF"]
ORIENTATIONS = [(3, struct.pack("<H", 6)), (2, b"6\0"), (1, b"\6"), (5, struct.pack("<II", 6, 1)), (3, struct.pack("<H", 9)), (7, b"\6")]


def exif(entries: list[tuple[int, int, int, bytes]]) -> bytes:
    """A TIFF directory of (tag, type, count, value or offset)."""
    rows = b"".join(struct.pack("<HHI", tag, kind, count) + value[:4].ljust(4, b"\0") for tag, kind, count, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4)


def described(kind: str, block: bytes) -> bytes:
    """A picture of noise with this block as its EXIF data."""
    image = noise(3, (48, 40))
    if kind == "TIFF":
        return coded(image, kind)
    if kind == "WEBP":
        return coded(image, kind, exif=block, lossless=True)
    plain = coded(image, kind)
    if kind == "JPEG":
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + plain[2:]
    chunk = b"eXIf" + block
    return plain[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]


def same_but_for_turns(data: bytes, kind: str) -> bool:
    plain, found = decode(coded(noise(3, (48, 40)), kind, **({"lossless": True} if kind == "WEBP" else {})), 40), decode(data, 40)
    return any((np.rot90(plain, turn) == found).all() for turn in range(4) if np.rot90(plain, turn).shape == found.shape)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_damaged_exif_costs_no_picture(kind: str, seed: int) -> None:
    """Blocks of every type, with pointers to anywhere, overwritten and cut at random."""
    draw = np.random.default_rng(seed)
    for _ in range(20):
        tags = draw.choice([0x112, 0x11A, 0x11B, 0x128, 0x8769, 0x8825, 0xA005, 0x10F, 0x100, 0x101, 0x213, 0x927C], 5, replace=False)
        value = [struct.pack("<I", int(v)) for v in draw.choice([0, 1, 6, 8, 9, 20, 99999, 2**32 - 1], 5)]
        count = draw.choice([0, 1, 2, 40, 2**20, 2**32 - 1], 5)
        block = bytearray(
            exif([(int(t), int(k), int(c), v) for t, k, c, v in zip(tags, draw.integers(0, 14, 5), count, value, strict=True)])
        )
        for place in draw.integers(0, len(block), draw.integers(0, 4)):
            block[place] = draw.integers(256)
        data = described(kind, bytes(block[: draw.integers(1, len(block) + 1)]))
        assert same_but_for_turns(data, kind)
        assert inspect(data).format == kind


@pytest.mark.parametrize(("number", "value"), ORIENTATIONS)
@pytest.mark.parametrize("kind", KINDS[:3])
def test_an_orientation_of_any_type_is_borne_by_check(number: int, value: bytes, kind: str, tmp_path: Path) -> None:
    for label in "ab":
        write(tmp_path / label, 4)
    (tmp_path / f"a/odd.{kind.lower()}").write_bytes(described(kind, exif([(0x112, number, 1, value)])))
    found = check(tmp_path)
    assert found.usable and len(found.formats) == 1 + (kind != "JPEG")


def test_tags_of_a_tiff_that_are_damaged_cost_no_picture() -> None:
    for tag, kind, value in ((0x112, 2, b"6\0"), (0x8769, 4, 99999), (0x8825, 4, 8), (700, 7, b"junk"), (33723, 2, "x"), (0x112, 12, 6.0)):
        tags = ImageFileDirectory_v2()
        tags.tagtype[tag] = kind
        tags[tag] = value
        assert same_but_for_turns(coded(noise(3, (48, 40)), "TIFF", tiffinfo=tags), "TIFF")


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"tIME", b"eXIf"])
def test_damaged_chunks_of_a_png_cost_no_picture(name: bytes) -> None:
    plain = coded(noise(3, (48, 40)))
    for body in (b"", b"junk\0\0junk", os.urandom(30)):
        for crc in (zlib.crc32(name + body), 1):
            chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)
            assert same_but_for_turns(plain[:33] + chunk + plain[33:], "PNG")


@pytest.mark.parametrize("marker", range(0xE1, 0xEE))
def test_damaged_segments_of_a_jpeg_cost_no_picture(marker: int) -> None:
    plain = coded(noise(3, (48, 40)), "JPEG")
    for body in (b"", b"MPF\0junk", b"ICC_PROFILE\0\1", b"Photoshop 3.0\0008BIM\4\4", b"http://ns.adobe.com/xap/1.0/\0<x", b"Exif\0\0MM"):
        assert same_but_for_turns(plain[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body + plain[2:], "JPEG")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA"])
def test_pixels_do_not_depend_on_metadata(kind: str, mode: str) -> None:
    try:
        data = coded(noise(5, (30, 20)).convert(mode), kind, comment=b"x", icc_profile=b"junk", exif=exif([(0x10F, 2, 4, b"abc\0")]))
    except OSError:
        pytest.skip(f"{kind} has no {mode}")
    bare = without_metadata(data)
    assert bare != data and (decode(bare, 20) == decode(data, 20)).all()


@pytest.mark.parametrize("head", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + bytes(60), b"%PDF-1.4\n"])
def test_nothing_that_starts_another_program_is_opened(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(Undecodable, match="not a picture"):
        decode(head + b"%%EndComments\n", 8)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"heix"])
def test_a_heic_picture_is_named(brand: bytes) -> None:
    with pytest.raises(Undecodable, match=r"HEIC.*JPEG"):
        decode(b"\0\0\0\x18ftyp" + brand + bytes(40), 8)


@pytest.mark.parametrize("place", ["a/pipe.jpg", "train/a/pipe.jpg"])
def test_pipes_and_devices_are_told_and_not_read(place: str, tmp_path: Path) -> None:
    folder = (tmp_path / place).parent
    for label in "ab":
        write(folder.parent / label, 4)
    os.mkfifo(tmp_path / place)
    for device in ("zero", "full", "random", "tty"):
        (folder / f"{device}.png").symlink_to(f"/dev/{device}")
    found = check(tmp_path)
    assert len(found.problems) == 5 and says("\n".join(found.problems), tmp_path / place, "ordinary")
    with pytest.raises(Undecodable, match="ordinary"):
        decode(tmp_path / place, 8)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize("name", [b"a/\xff.jpg", b"\xff\xfe/x.jpg", b"a/\xe9t\xe9/x.jpg"])
def test_check_bears_names_that_are_not_utf8(name: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in "ab":
        write(tmp_path / "data" / label, 4)
    path = os.path.join(os.fsencode(tmp_path), b"data", name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write((tmp_path / "data/a/0.jpg").read_bytes())
    assert cli.main(["data", "check", str(tmp_path / "data"), "--html", str(tmp_path / "page.html")]) == 1
    assert says(capsys.readouterr().out, "UTF-8")
    assert cli.main(["data", "check", str(tmp_path / "data"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"]


@pytest.mark.parametrize("white", [1023, 4095, 16383])
def test_a_tiff_that_names_its_largest_value_is_scaled_by_it(white: int) -> None:
    values = np.linspace(0, white, 64).reshape(8, 8).round().astype(np.uint16)
    data = coded(Image.fromarray(values), "TIFF", tiffinfo={281: white})
    assert (decode(data, 8)[..., 0] == (values * (255 / white)).round()).all() and inspect(data).largest == 1
    understated = coded(Image.fromarray(values), "TIFF", tiffinfo={281: white // 2})
    assert (decode(understated, 8)[..., 0] == (values / 257).round()).all()


@pytest.mark.parametrize("bits", [10, 12])
def test_dark_pictures_of_16_bits_are_noted(bits: int, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(4):
            values = np.random.default_rng(number + ord(label)).integers(0, 2**bits, (40, 40)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / label / f"{number}.png")
    assert says("\n".join(check(tmp_path).suspicious), "8 pictures", "16 bits", "nearly black")


def test_what_is_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.truncate(tmp_path / "a.jpg", 2**31)
    with pytest.raises(Undecodable, match=r"2\.0 GiB"):
        decode(tmp_path / "a.jpg", 8)


@pytest.mark.parametrize(("white", "noted"), [(4095, True), (65535, False)])
def test_a_run_notes_that_most_pictures_are_nearly_black(white: int, noted: bool, tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(4):
            values = np.random.default_rng(number).integers(0, white + 1, (40, 40)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / label / f"{number}.tif")
    found = open_data(tmp_path)
    pixels = Pixels.load([path for split in found.splits.values() for path in split.paths], 32)
    assert [says(note, "8 of 8 pictures", "nearly black") for note in dark(found, pixels)] == [True] * noted
