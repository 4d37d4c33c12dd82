"""Each kind of picture by its rule, each broken one by its reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from rekindle.data import Undecodable
from rekindle.data.cache.decode import decode, inspect
from rekindle.errors import UserError

CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]], [[9, 99, 199], [250, 120, 3]]], np.uint8)


def coded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def pixel(data: bytes) -> list[int]:
    """The colour of a picture that has one colour."""
    found = decode(data, 4)
    assert (found == found[0, 0]).all()
    return found[0, 0].tolist()


def test_a_path_a_string_and_bytes_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(coded(Image.fromarray(noise(9, 7))))
    assert (decode(path, 5) == decode(path.read_bytes(), 5)).all()
    assert (decode(str(path), 5) == decode(path, 5)).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_lossless_picture_of_the_wanted_edge_is_untouched(kind: str) -> None:
    image = noise(6, 9)
    found = decode(coded(Image.fromarray(image), kind), 6)
    assert found.dtype == np.uint8
    assert (found == image).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    """The value names where row 0 and column 0 of the stored picture belong (EXIF 2.3, table of tag 0x0112)."""
    stored = {
        1: CORNERS, 2: CORNERS[:, ::-1], 3: CORNERS[::-1, ::-1], 4: CORNERS[::-1], 5: CORNERS.transpose(1, 0, 2),
        6: np.rot90(CORNERS, 1), 7: np.rot90(CORNERS, 2).transpose(1, 0, 2), 8: np.rot90(CORNERS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (decode(coded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif), 2) == CORNERS).all()


def test_an_orientation_that_swaps_the_sides_swaps_which_is_shorter() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(coded(Image.fromarray(noise(20, 40)), "JPEG", exif=exif), 10).shape == (20, 10, 3)


@pytest.mark.parametrize(("value", "wanted"), [(0, 0), (65535, 255), (32768, 128), (257, 1), (128, 0), (129, 1), (40000, 156)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(value: int, wanted: int, kind: str) -> None:
    assert pixel(coded(Image.fromarray(np.full((4, 4), value, np.uint16)), kind)) == [wanted] * 3


def test_big_endian_16_bit_grey() -> None:
    image = Image.frombytes("I;16B", (4, 4), struct.pack(">16H", *[32768] * 16))
    assert pixel(coded(image, "TIFF")) == [128] * 3


def test_wider_numbers_than_16_bits_are_refused() -> None:
    with pytest.raises(Undecodable, match="from 70000 to 70000, more than 16 bits hold"):
        decode(coded(Image.fromarray(np.full((4, 4), 70000, np.int32)), "TIFF"), 4)
    with pytest.raises(Undecodable, match="floating-point"):
        decode(coded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), 4)


@pytest.mark.parametrize(("alpha", "wanted"), [(0, [255, 255, 255]), (255, [10, 20, 30]), (51, [206, 208, 210])])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_laid_on_white(alpha: int, wanted: list[int], kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert pixel(coded(Image.new("RGBA", (4, 4), (10, 20, 30, alpha)), kind, **options)) == wanted


@pytest.mark.parametrize(("alpha", "wanted"), [(0, 255), (255, 40), (51, 212)])
def test_grey_with_alpha_is_laid_on_white(alpha: int, wanted: int) -> None:
    assert pixel(coded(Image.new("LA", (4, 4), (40, alpha)))) == [wanted] * 3


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 4), 2)
    image.putpalette([0, 0, 0, 1, 1, 1, 200, 100, 50])
    assert pixel(coded(image)) == [200, 100, 50]
    assert pixel(coded(image, "GIF")) == [200, 100, 50]


@pytest.mark.parametrize(("transparency", "wanted"), [(2, [255, 255, 255]), (1, [200, 100, 50]), (b"\xff\xff\x33", [244, 224, 214])])
def test_transparent_palette_entries_are_laid_on_white(transparency: int | bytes, wanted: list[int]) -> None:
    image = Image.new("P", (4, 4), 2)
    image.putpalette([0, 0, 0, 1, 1, 1, 200, 100, 50])
    assert pixel(coded(image, transparency=transparency)) == wanted


@pytest.mark.parametrize(("mode", "color", "key"), [("L", 7, 7), ("RGB", (7, 8, 9), (7, 8, 9))])
def test_a_transparent_colour_is_white(mode: str, color: object, key: object) -> None:
    assert pixel(coded(Image.new(mode, (4, 4), color), transparency=key)) == [255] * 3


@pytest.mark.parametrize(("mode", "color", "wanted"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)])
def test_grey_and_1_bit_fill_three_channels(mode: str, color: int, wanted: int) -> None:
    assert pixel(coded(Image.new(mode, (4, 4), color))) == [wanted] * 3


@pytest.mark.parametrize(("ink", "wanted"), [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 255, 255, 0), 0)])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(ink: tuple[int, ...], wanted: int, kind: str) -> None:
    assert np.abs(np.array(pixel(coded(Image.new("CMYK", (16, 16), ink), kind))) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert pixel(coded(frames[0], kind, save_all=True, append_images=frames[1:], **options)) == [255, 0, 0]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (201, 333), (146, 146), (50, 80), (146, 500)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_resize_is_torchvisions(size: tuple[int, int], interpolation: str) -> None:
    image = Image.fromarray(noise(*size, seed=size[0]))
    wanted = v2.Resize(146, interpolation=v2.InterpolationMode(interpolation))(image)
    assert (decode(coded(image), 146, interpolation) == np.asarray(wanted)).all()


def test_a_jpeg_is_decoded_at_full_size_before_it_shrinks() -> None:
    """Pillow's draft mode would decode this one at an eighth and blur otherwise."""
    data = coded(Image.fromarray(noise(640, 640)), "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
    assert (decode(data, 16) == wanted).all()


PHOTO = coded(Image.fromarray(noise(64, 64)), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "not a picture that Pillow knows"),
        (b"\n<!DOCTYPE html><html>", "a web page, SVG or other text with tags"),
        (PHOTO[: len(PHOTO) // 2], "truncated"),
        (PHOTO[:-2], "truncated"),
        (PHOTO[:30], "(?i)not a picture that Pillow knows|truncated"),
        (coded(Image.fromarray(noise(64, 64)))[:2000], "truncated"),
        (coded(Image.fromarray(noise(64, 64)), "TIFF")[:2000], "."),
        (coded(Image.fromarray(noise(64, 64)), "BMP")[:2000], "truncated"),
        (coded(Image.fromarray(noise(64, 64)), "WEBP")[:2000], "."),
        (coded(Image.new("L", (1, 10_000))), "1 x 10000 pixels: one side is more than 50 times the other"),
    ],
)
def test_what_holds_no_picture_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason):
        decode(data, 8)


def claiming(width: int, height: int) -> bytes:
    """The chunks of a PNG file that claims a size and has no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"")
    return b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body, b"IEND"))


@pytest.mark.parametrize(
    ("width", "height"), [(13_300, 13_300), (11_000, 11_000), (120_001, 1_000), (2**31 - 1, 2**31 - 1), (65_000, 65_000)]
)
def test_a_size_above_the_limit_is_refused_by_what_the_file_claims(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    for act in (lambda data: decode(data, 8), inspect):
        with pytest.raises(Undecodable, match="120 million that are read"):
            act(b"\x89PNG\r\n\x1a\n" + claiming(width, height))


def test_what_a_small_file_is_blown_up_to_has_the_same_limit() -> None:
    with pytest.raises(Undecodable, match="shorter edge of 8000"):
        decode(coded(Image.new("RGB", (4, 100))), 8000)


def test_a_decompression_bomb_is_refused_unopened() -> None:
    """A few bytes that claim 40,000 x 40,000 pixels."""
    chunks = claiming(40_000, 40_000)
    with pytest.raises(Undecodable, match="1600000000 pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunks, 8)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_any_damage_is_an_undecodable_or_a_picture(kind: str) -> None:
    """Bytes overwritten at random never escape as another error."""
    good = coded(Image.fromarray(noise(24, 24)), kind)
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        data = bytearray(good[: rng.integers(1, len(good) + 1)])
        for place in rng.integers(0, len(data), 8):
            data[place] = rng.integers(256)
        try:
            outcomes.add(min(decode(bytes(data), 8).shape[:2]))
        except Undecodable as error:
            assert str(error)
            outcomes.add("refused")
    assert outcomes <= {8, "refused"}
    assert "refused" in outcomes


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(Undecodable, match="^No such file or directory$"):
        decode(tmp_path / "no.png", 8)


def test_wrong_arguments_are_told_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interpolation must be one of nearest, bilinear, bicubic, lanczos, found 'cubic'"):
        decode(tmp_path / "no.png", 8, "cubic")
    with pytest.raises(UserError, match="at least 1 pixel, found 0"):
        decode(tmp_path / "no.png", 0)
