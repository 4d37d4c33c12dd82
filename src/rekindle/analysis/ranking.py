"""Rank pre-trained networks for a labelled set before anything is trained, by three transferability scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rekindle import data as data_room
from rekindle import models
from rekindle.analysis.features import FeatureReader
from rekindle.analysis.transferability import h_score, leep, logme
from rekindle.data.samples import Preprocessing, Samples
from rekindle.errors import UserError, first_line
from rekindle.method import noop
from rekindle.spec import RunSpec, check_option

BATCH = 64
SCORES = {
    "logme": "LogME: how well a Bayesian linear model on the features explains the labels (nats a picture).",
    "leep": "LEEP: how well the old classifier's answers alone tell the labels (nats a picture, at most 0; needs a trained classifier).",
    "h_score": "H-score: how far the class means of the features are apart, against their spread (shrunk; from 0 to classes - 1).",
}
ADVICE = (
    "Higher is better. Scores compare networks on these pictures only; they are guesses, and training the best two or three settles it."
)


@dataclass(frozen=True)
class RankedNetwork:
    """One network on one set of pictures.

    Attributes:
        model: As it was asked for.
        pretrained: Where its weights came from, in words.
        image_size: Edge of the crop that it was shown.
        features: Width of what its classifier sees.
        logme: See `rekindle.analysis.transferability`.
        leep: None where there is no trained classifier.
        h_score: The shrunk one.
    """

    model: str
    pretrained: str
    image_size: int
    features: int
    logme: float
    leep: float | None
    h_score: float

    @property
    def label(self) -> str:
        """The network, and the name of its weights' file without the folders."""
        name, equals, weights = self.model.partition("=")
        return f"{name}{equals}{Path(weights).name}"


@dataclass(frozen=True)
class Ranking:
    """What `rank` found.

    Attributes:
        candidates: Best LogME first.
        pictures: How many training pictures were looked at.
        classes: Names of the classes.
    """

    candidates: list[RankedNetwork]
    pictures: int
    classes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As rank.json holds it.

        Returns:
            Plain values.
        """
        return {
            "pictures": self.pictures,
            "classes": self.classes,
            "scores": SCORES,
            "candidates": [asdict(one) for one in self.candidates],
        }


def rank(
    data: str | Path, candidates: Sequence[str], *, image_size: int = 0, per_class: int = 0, seed: int = 0, listener: Any = None
) -> Ranking:
    """Score pre-trained networks on the training pictures of a folder; the validation and test splits are not looked at.

    Args:
        data: As for `rekindle.fit`.
        candidates: Networks, each NAME or NAME=WEIGHTS.safetensors, with names as for `rekindle.fit`.
        image_size: Edge of the crop in pixels; 0 takes what each network's weights were trained on.
        per_class: Look at this many pictures a class; 0 takes all.
        seed: Key of splits and subsets.
        listener: Told of progress; see `rekindle.training.listener.Listener`.

    Returns:
        Scores of each candidate, the highest LogME first.

    Raises:
        UserError: For bad input, in one sentence.
    """
    for name, value in (("image_size", image_size or None), ("per_class", per_class or None), ("seed", seed)):
        check_option(name, value)
    asked = [text.strip() for text in candidates if text.strip()]
    if not asked or len(set(asked)) < len(asked):
        raise UserError(f"name different networks, joined by commas, such as tiny,resnet18; found {', '.join(asked) or 'none'}.")
    loaded = [_build(text, image_size) for text in asked]
    share = 0.0 if per_class else RunSpec.val_fraction  # A subset that is only looked at needs no validation beside it.
    dataset = data_room.open_data(str(data), seed=seed, per_class=per_class or None, val_fraction=share)
    found = [_score(text, one, dataset, image_size, listener) for text, one in zip(asked, loaded, strict=True)]
    return Ranking(sorted(found, key=lambda one: -one.logme), len(dataset.splits["train"].paths), dataset.classes)


def _build(text: str, image_size: int) -> models.LoadedModel:
    name, _, weights = text.partition("=")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # Random weights, where they are asked for, are the same each time.
        return models.build(name, weights=weights or "default", image_size=image_size)


def _score(text: str, loaded: models.LoadedModel, dataset: data_room.Dataset, image_size: int, listener: Any) -> RankedNetwork:
    split = dataset.splits["train"]
    how = Preprocessing.of(loaded, image_size)
    pixels = data_room.Pixels.load(split.paths, how.edge, how.interpolation, cache=data_room.Cache.default())
    samples = Samples(pixels, torch.arange(len(split.paths)), split.labels, how)
    progress = listener.progress if listener else noop
    try:
        features, probabilities = features_of(loaded.module, samples, lambda done: progress(text, done, len(samples)))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"{text} failed on pictures of {how.image_size} x {how.image_size} pixels ({first_line(error)}); try --image-size {loaded.input_size}."
        ) from error
    labels, trained = split.labels.numpy(), loaded.pretrained != models.LoadedModel.pretrained
    answers = leep(probabilities, labels) if probabilities is not None and trained else None
    return RankedNetwork(
        text, loaded.pretrained, how.image_size, features.shape[1], logme(features, labels), answers, h_score(features, labels, shrink=True)
    )


def features_of(
    module: nn.Module, samples: "Samples", progress: Any = noop, *, rows: Tensor | None = None, device: torch.device | None = None,
    batch: int = BATCH,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """What a network's classifier sees of every picture, and what it says, in evaluation mode at the centre crop.

    Args:
        module: The network; left in evaluation mode.
        samples: Pictures.
        progress: Told of the number of pictures done.
        rows: Those to look at, in this order; None looks at all.
        device: Where to compute; None takes a GPU where there is one.
        batch: Pictures at a time.

    Returns:
        (N, D) features; maps and sequences are averaged over positions, and two classifiers' features stand side by side. And
        (N, C) probabilities; None for a network without a classifier, whose outputs are the features.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = torch.arange(len(samples)) if rows is None else rows
    module.eval().to(device)
    features, answers = [], []
    with FeatureReader(module) as reader:
        for number, part_rows in enumerate(rows.split(batch)):
            seen, outputs = reader.read(samples.evaluation(part_rows, device).to(memory_format=torch.channels_last))
            features.append(seen.cpu())
            answers.append(outputs.double().softmax(1).cpu())
            progress(number * batch + len(part_rows))
    return torch.cat(features).double().numpy(), None if reader.headless else torch.cat(answers).numpy()
