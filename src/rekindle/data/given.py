"""Pictures as Python programs hold them: files and folders by name, PIL images, arrays of pixels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rekindle.data.formats.folder_walk import find_new
from rekindle.data.formats.images import Picture
from rekindle.errors import UserError, shown
from rekindle.files import expand

Given = str | Path | Image.Image | np.ndarray
Readable = Picture | Image.Image


def given_pictures(given: Given | Sequence[Given]) -> list[tuple[str, Readable]]:
    """Names and pictures in the order in which they were given; pictures in memory are named by their place there, such as "[3]".

    Returns:
        (name, picture) pairs.

    Raises:
        UserError: For what is no picture, or if there is none.
    """
    items = list(given) if isinstance(given, list | tuple) else [given]
    if all(isinstance(item, str | Path) for item in items):
        return [(str(path), path) for path in find_new([expand(item) for item in items]).paths]  # type: ignore[arg-type]
    return [pair for place, item in enumerate(items) for pair in _read(f"[{place}]", item)]


def _read(name: str, item: object) -> Iterator[tuple[str, Readable]]:
    if isinstance(item, str | Path):
        yield from ((str(path), path) for path in find_new([expand(item)]).paths)
    elif isinstance(item, Image.Image):
        yield name, item
    elif isinstance(item, np.ndarray) and item.ndim == 4:
        yield from ((f"{name}[{place}]", _image(one)) for place, one in enumerate(item))
    elif isinstance(item, np.ndarray):
        yield name, _image(item)
    else:
        raise UserError(f"a picture is a path, a PIL image or an array of pixels, found {shown(item)}.")


def _image(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or not pixels.size:
        raise UserError(
            f"an array of pixels is of uint8 and (H, W, 3), (H, W, 4) or (H, W), found {pixels.dtype} {pixels.shape}; "
            "shares from 0 to 1 are made so by (255 * array).astype('uint8')."
        )
    return Image.fromarray(pixels)
