"""One rule for each kind of picture: any file that Pillow reads becomes 8-bit RGB, resized by its shorter edge.

Colour profiles are not applied, and JPEG's quick decoding at a smaller size is not used: it would make pixels depend on `edge`.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rekindle.data.formats.images import Picture, TableImage
from rekindle.errors import UserError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Version of the rules below. Count it up with any change of a pixel: the cache is keyed by it.
RULES = 1
MAX_RATIO = 50
DEEP_WHITE = 65535


class Undecodable(UserError):
    """A file that holds no picture; the message is the reason alone."""


def decode(source: Picture | str | bytes, edge: int, interpolation: str = "bilinear") -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 whose shorter edge is `edge` pixels, its aspect ratio kept.

    The first frame of an animation; turned as its EXIF orientation says; 16-bit greys divided by 257; CMYK, palettes and greys
    converted to RGB; transparent parts laid on white.

    Args:
        source: The file or cell, or the bytes of one.
        edge: Length of the shorter edge after the resize, at least 1.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", antialiased by Pillow where it shrinks.

    Raises:
        Undecodable: If the file is empty, cut off, no picture, or of an absurd shape.
        UserError: If `edge` or `interpolation` is not allowed.
    """
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, found {interpolation!r}.")
    if edge < 1:
        raise UserError(f"the shorter edge must be at least 1 pixel, found {edge}.")
    data = source if isinstance(source, bytes) else read(Path(source) if isinstance(source, str) else source)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(resize(to_rgb(image), edge, interpolation))
    except Undecodable:
        raise
    except UnidentifiedImageError:
        raise Undecodable(_what_else(data)) from None
    except Exception as error:  # noqa: BLE001
        # Damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error, IndexError, MemoryError ...
        raise Undecodable(str(error) or type(error).__name__) from None


def read(picture: Picture) -> bytes:
    """The encoded bytes of a file or cell.

    Raises:
        Undecodable: If it cannot be opened.
    """
    try:
        return picture.read() if isinstance(picture, TableImage) else picture.read_bytes()
    except OSError as error:
        raise Undecodable(error.strerror or str(error)) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert the first frame to upright RGB."""
    image.seek(0)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_deep(image)
    if image.mode == "F":
        raise Undecodable("its pixels are floating-point numbers, whose range is not agreed; save it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def resize(image: Image.Image, edge: int, interpolation: str) -> Image.Image:
    """Scale so that the shorter edge has `edge` pixels; the longer one is rounded down, as torchvision does."""
    width, height = image.size
    if max(width, height) > MAX_RATIO * min(width, height):
        raise Undecodable(f"{width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    longer = int(edge * max(width, height) / min(width, height))
    size = (edge, longer) if width <= height else (longer, edge)
    return image if image.size == size else image.resize(size, INTERPOLATIONS[interpolation])


def _from_deep(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits: 65535 / 257 = 255, without the clipping of Pillow's own conversion."""
    values = np.asarray(image).astype(np.float64)
    if values.min() < 0 or values.max() > DEEP_WHITE:
        raise Undecodable(
            f"its grey values reach from {values.min():.0f} to {values.max():.0f}, more than 16 bits hold; save it with 8 or 16 bits"
        )
    return Image.fromarray((values / 257.0).round().astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _what_else(data: bytes) -> str:
    """Why Pillow does not know these bytes; a web page saved by a failed download is the usual case."""
    if not data:
        return "the file is empty"
    if data.lstrip()[:1] == b"<":
        return "a web page, SVG or other text with tags, not pixels"
    return "not a picture that Pillow knows, or a damaged one"
