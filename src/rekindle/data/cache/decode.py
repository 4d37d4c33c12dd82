"""One rule for each kind of picture: any file that Pillow reads becomes 8-bit RGB, resized by its shorter edge.

Colour profiles are not applied, and JPEG's quick decoding at a smaller size is not used: it would make pixels depend on `edge`.
"""

import io
import re
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from rekindle.data.cache.metadata import without_metadata
from rekindle.data.formats.images import Picture, TableImage, read_file
from rekindle.errors import UserError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Version of the rules below. Count it up with any change of a pixel: the cache is keyed by it.
RULES = 2
MAX_RATIO = 50
# What a file claims costs about five bytes a pixel before it is made small, whatever is in it, and in each thread.
MOST_PIXELS, LARGE = 120_000_000, 25_000_000
_TOO_MANY = f"more than the {MOST_PIXELS // 10**6} million that are read; save it smaller"
_one_at_a_time = threading.Lock()
DEEP_WHITE = 65535
# Of EPS and others Pillow has decoders that start a program, and of some no mark in the file tells that it is one of them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)
TIFF_BITS, TIFF_WHITE = 258, 281
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
# What damaged metadata say is ignored, so nobody needs a line for every such picture.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*ImagePlugin")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # There is a limit of our own.

Result = TypeVar("Result")


class Undecodable(UserError):
    """A file that holds no picture; the message is the reason alone."""


def decode(source: Picture | str | bytes, edge: int, interpolation: str = "bilinear") -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 whose shorter edge is `edge` pixels, its aspect ratio kept.

    The first frame of an animation; turned as its EXIF orientation says; 16-bit greys divided by 257, or by what a TIFF file says
    of its bits or its largest value; CMYK, palettes and greys converted to RGB; transparent parts laid on white. Damaged metadata
    are ignored.

    Args:
        source: The file or cell, or the bytes of one.
        edge: Length of the shorter edge after the resize, at least 1.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", antialiased by Pillow where it shrinks.

    Returns:
        (H, W, 3) uint8, min(H, W) equal to the edge.

    Raises:
        Undecodable: If the file is empty, cut off, no picture, or of an absurd shape.
        UserError: If `edge` or `interpolation` is not allowed.
    """
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, found {interpolation!r}.")
    if edge < 1:
        raise UserError(f"the shorter edge must be at least 1 pixel, found {edge}.")
    data = source if isinstance(source, bytes) else read(Path(source) if isinstance(source, str) else source)
    return _whatever_describes_it(data, lambda image: np.asarray(resize(to_rgb(image), edge, interpolation)))


def decode_image(image: Image.Image, edge: int, interpolation: str = "bilinear") -> np.ndarray:
    """The pixels of a picture in memory by the rules of `decode`; the picture stays as it is.

    Returns:
        (H, W, 3) uint8, min(H, W) equal to the edge.

    Raises:
        Undecodable: If it is of a kind that is not read, or of an absurd shape.
    """
    try:
        return np.asarray(resize(to_rgb(image.copy()), edge, interpolation))
    except Undecodable:
        raise
    except Exception as error:  # noqa: BLE001 (a picture that is read only now may be damaged as a file is)
        raise Undecodable(str(error) or type(error).__name__) from None


def decode_whole(source: Picture) -> np.ndarray:
    """Read a picture by the rules of `decode` at its own size, (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.

    Raises:
        Undecodable: If it holds no picture.
    """
    return _whatever_describes_it(read(source), lambda image: np.asarray(to_rgb(image)))


@dataclass(frozen=True)
class ImageFacts:
    """What a file says of its picture.

    Attributes:
        width: Pixels, once upright.
        height: Pixels, once upright.
        mode: Pillow's, such as RGB, L, CMYK, P or I;16.
        format: Pillow's, such as JPEG.
        rotated: Its EXIF data turn it.
        frames: More than one in an animation; 1 where those after the first are damaged, since none of them is used.
        largest: Of 16-bit greys, the largest value over that of white; else 1.
    """

    width: int
    height: int
    mode: str
    format: str
    rotated: bool
    frames: int
    largest: float = 1.0


def inspect(data: bytes) -> ImageFacts:
    """Read what a file says of its picture.

    Returns:
        Size in pixels, format, mode and orientation, without the pixels.

    Raises:
        Undecodable: If the file holds no picture.
    """

    def facts(image: Image.Image) -> ImageFacts:
        mode, width, height = image.mode, *image.size
        turned = orientation(image)
        if turned in SIDEWAYS:
            width, height = height, width
        largest = float(np.asarray(image).max()) / white_of(image) if is_deep(mode) else 1.0
        return ImageFacts(width, height, mode, image.format or "?", turned > 1, _frames(image), largest)

    return _whatever_describes_it(data, facts)


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # noqa: BLE001 (damaged files make Pillow raise nearly anything)
        return 1


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _whatever_describes_it(data: bytes, act: Callable[[Image.Image], Result]) -> Result:
    """Do something with a picture, if need be without its metadata."""
    try:
        return _opened(data, act)
    except Undecodable:
        bare = without_metadata(data)
        if bare == data:
            raise
        try:
            return _opened(bare, act)
        except Undecodable:
            pass
        raise


def _opened(data: bytes, act: Callable[[Image.Image], Result]) -> Result:
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            pixels = image.width * image.height
            if pixels > MOST_PIXELS:
                raise Undecodable(f"{image.width} x {image.height} pixels: {_TOO_MANY}")
            with _one_at_a_time if pixels > LARGE else nullcontext():
                return act(image)
    except Undecodable:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit comes first where it is lower, or the picture far larger.
        claimed = re.search(r"\d+ pixels", str(error))
        raise Undecodable(f"{claimed[0] if claimed else 'its size'}: {_TOO_MANY}") from None
    except UnidentifiedImageError:
        raise Undecodable(_what_else(data)) from None
    except Exception as error:  # noqa: BLE001
        # Damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error, IndexError, MemoryError ...
        raise Undecodable(str(error) or type(error).__name__) from None


def read(picture: Picture) -> bytes:
    """The encoded bytes of a file or cell.

    Returns:
        The bytes as they are stored, undecoded.

    Raises:
        Undecodable: If it cannot be opened.
    """
    try:
        return picture.read() if isinstance(picture, TableImage) else read_file(picture)
    except OSError as error:
        raise Undecodable(error.strerror or str(error)) from None


def orientation(image: Image.Image) -> int:
    """How the EXIF data turn a picture, 1 to 8 as EXIF counts; 1 where they are damaged or say nothing.

    Returns:
        A number from 1 (upright) to 8.
    """
    try:
        value = image.getexif().get(ORIENTATION, 1)
        return int(value) if value in TURNS else 1
    except Exception:  # noqa: BLE001 (damaged metadata make Pillow raise nearly anything)
        return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert the first frame to upright RGB.

    Returns:
        A picture of mode RGB.
    """
    image.seek(0)
    white = white_of(image)
    image.load()  # Turns a TIFF file by itself, and then forgets its orientation.
    turn = TURNS.get(orientation(image))
    info, image = image.info, image if turn is None else image.transpose(turn)
    if is_deep(image.mode):
        return _from_deep(image, white)
    if image.mode == "F":
        raise Undecodable("its pixels are floating-point numbers, whose range is not agreed; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def resize(image: Image.Image, edge: int, interpolation: str) -> Image.Image:
    """Scale so that the shorter edge has `edge` pixels; the longer one is rounded down, as torchvision does.

    Returns:
        A picture of the same mode.
    """
    width, height = image.size
    if max(width, height) > MAX_RATIO * min(width, height):
        raise Undecodable(f"{width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    longer = int(edge * max(width, height) / min(width, height))
    if edge * longer > MOST_PIXELS:
        raise Undecodable(f"{width} x {height} pixels, scaled to a shorter edge of {edge}: {_TOO_MANY}, or give a smaller --image-size")
    size = (edge, longer) if width <= height else (longer, edge)
    return image if image.size == size else image.resize(size, INTERPOLATIONS[interpolation])


def is_deep(mode: str) -> bool:
    """Whether pixels of a mode are greys of more than 8 bits.

    Returns:
        True for the modes "I" and "I;16" with its byte orders.
    """
    return mode == "I" or mode.startswith("I;16")


def white_of(image: Image.Image) -> int:
    """The value of white among 16-bit greys: what a TIFF file says of its bits or its largest value, else 65535.

    Returns:
        A value from 255 to 65535.
    """
    try:
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, white = tags.get(TIFF_BITS, (16,))[0], tags.get(TIFF_WHITE, DEEP_WHITE)
        white = white[0] if isinstance(white, tuple) else white
    except Exception:  # noqa: BLE001 (no TIFF file, or one with damaged tags)
        return DEEP_WHITE
    said = min(int(white), 2 ** int(bits) - 1)
    return said if 255 <= said < DEEP_WHITE else DEEP_WHITE


def _from_deep(image: Image.Image, white: int) -> Image.Image:
    """16-bit grey to 8 bits: 65535 / 257 = 255, without the clipping of Pillow's own conversion."""
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > DEEP_WHITE:
        raise Undecodable(
            f"its grey values reach from {values.min():.0f} to {values.max():.0f}, more than 16 bits hold; save it with 8 or 16 bits"
        )
    # A file may understate its largest value; then it said nothing.
    scale = 255 / (white if values.max() <= white else DEEP_WHITE)
    return Image.fromarray((values * scale).round().astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _what_else(data: bytes) -> str:
    """Why Pillow does not know these bytes; a web page saved by a failed download is the usual case."""
    if not data:
        return "the file is empty"
    if data.lstrip()[:1] == b"<":
        return "a web page, SVG or other text with tags, not pixels"
    if data[4:8] == b"ftyp" and data[8:12] in HEIC:
        return "a HEIC picture; save it as JPEG"
    return "not a picture that Pillow knows, or a damaged one"
