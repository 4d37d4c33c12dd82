"""One rule for each kind of picture: any file that Pillow reads becomes 8-bit RGB, resized by its shorter edge."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from rekindle.errors import UserError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MAX_RATIO = 50


class Undecodable(UserError):
    """A file that holds no picture; the message is the reason alone."""


def decode(path: Path, edge: int, interpolation: str = "bilinear") -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 whose shorter edge is `edge` pixels, its aspect ratio kept.

    The first frame of an animation; turned as its EXIF orientation says; 16-bit greys scaled to 8; CMYK, palettes and greys
    converted to RGB; transparent parts laid on white.

    Raises:
        Undecodable: If the file is empty, cut off, no picture, or of an absurd shape.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(resize(to_rgb(image), edge, interpolation))
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        raise Undecodable("the file is empty" if empty else "not a picture, or a damaged one") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise Undecodable(str(error) or type(error).__name__) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert the first frame to upright RGB."""
    image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _from_deep(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def resize(image: Image.Image, edge: int, interpolation: str) -> Image.Image:
    """Scale so that the shorter edge has `edge` pixels; the longer one is rounded down, as torchvision does."""
    width, height = image.size
    if max(width, height) > MAX_RATIO * min(width, height):
        raise Undecodable(f"{width} x {height} pixels: a side is more than {MAX_RATIO} times the other")
    shorter, longer = min(width, height), max(width, height)
    scaled = int(edge * longer / shorter)
    size = (edge, scaled) if width <= height else (scaled, edge)
    return image if image.size == size else image.resize(size, INTERPOLATIONS[interpolation])


def _from_deep(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    if image.mode != "F":
        values = values / 257.0
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
