"""Heat maps over pictures: those of a run's page, its surest mistakes and its surest right answers, and that of any one picture."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from rekindle.analysis.heat_maps import heat_maps
from rekindle.data import Picture, Undecodable
from rekindle.data.samples import Preprocessing
from rekindle.errors import UserError
from rekindle.files import embed
from rekindle.records import Answer, read_predictions
from rekindle.report.cards import Card, card_of
from rekindle.report.results import worst_mistakes
from rekindle.run import Run

WRONG, RIGHT = 12, 6
EDGE = 160
VEIL, FADE = 0.7, 0.75  # How much of the picture the brightest heat hides, and how slowly less heat hides less.


def heat_cards(run: Run, split: str, find: Callable[[str], Picture]) -> list[Card]:
    """Cards with the picture as the network sees it and its heat map for the class that was named.

    Returns:
        One card an answer whose picture is still there.

    Raises:
        UserError: Without captum, for a network without a feature map, or if no picture can be read.
    """
    rows, pixels = _readable(run, [*worst_mistakes(run.folder, split, WRONG), *_surest_right(run, split)], find)
    if not rows:
        raise UserError("none of the pictures of the run's answers can be read, so there is nothing to explain.")
    heats = _heats(run, pixels, [row["prediction"] for row in rows])
    return [
        card_of(row, image=_jpeg(image, EDGE), heat=_overlay(image, heat, EDGE))
        for row, image, heat in zip(rows, pixels, heats, strict=True)
    ]


def heat_picture(run: Run, picture: Picture, label: str, edge: int) -> str:
    """Where the network looks in a picture for a class: a data: address of a JPEG of at most `edge` pixels, the picture in grey below it.

    Returns:
        An address that begins with "data:".

    Raises:
        UserError: Without captum, or for a network without a feature map.
        Undecodable: If it is no picture.
    """
    pixels = Preprocessing.from_recipe(run.model[1]).pixels(picture)
    return _overlay(pixels, _heats(run, [pixels], [label])[0], edge)


def _heats(run: Run, pixels: Sequence[np.ndarray], labels: Sequence[str]) -> Tensor:
    """(N, S, S) from 0 to 1, of each picture for its class."""
    module, recipe = run.model
    device = next(module.parameters()).device
    targets = torch.tensor([recipe["classes"].index(label) for label in labels], device=device)
    return heat_maps(module, Preprocessing.from_recipe(recipe).normalize(np.stack(pixels)).to(device), targets).cpu()


def _surest_right(run: Run, split: str) -> list[Answer]:
    """One of each class, the surest first, as far as `RIGHT` goes."""
    right = [row for row in read_predictions(run.folder, split) if row["label"] == row["prediction"]]
    by_class: dict[str, Answer] = {}
    for row in sorted(right, key=lambda row: (-float(row["confidence"]), row["path"])):
        by_class.setdefault(row["label"], row)
    return list(by_class.values())[:RIGHT]


def _readable(run: Run, rows: Sequence[Answer], find: Callable[[str], Picture]) -> tuple[list[Answer], list[np.ndarray]]:
    """Answers whose pictures can be read, and these as the network gets them, (S, S, 3) uint8."""
    preprocessing = Preprocessing.from_recipe(run.model[1])
    found: list[Answer] = []
    pixels: list[np.ndarray] = []
    for row in rows:
        try:
            pixels.append(preprocessing.pixels(find(row["path"])))
        except (Undecodable, OSError, KeyError):
            continue
        found.append(row)
    return found, pixels


def _overlay(image: np.ndarray, heat: Tensor, edge: int) -> str:
    """The picture in grey with the heat over it, clear where there is none."""
    grey = image.mean(2, keepdims=True).repeat(3, 2) / 255
    share = heat.numpy()[:, :, None]
    color = colormaps["inferno"](heat.numpy())[:, :, :3]
    veil = VEIL * share**FADE
    return _jpeg(((1 - veil) * grey + veil * color).clip(0, 1) * 255, edge)


def _jpeg(image: np.ndarray, edge: int) -> str:
    picture = Image.fromarray(image.astype(np.uint8))
    picture.thumbnail((edge, edge))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return embed(buffer.getvalue())
