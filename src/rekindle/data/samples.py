"""How a picture becomes the network's input: one rule for training, evaluation and prediction."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from rekindle.data.batches import center_crop, eval_batch, normalize, train_batch
from rekindle.data.cache.decode import decode, decode_image
from rekindle.data.cache.pixels import Pixels
from rekindle.data.dataset import Dataset
from rekindle.data.formats.images import Picture
from rekindle.models.build import LoadedModel

if TYPE_CHECKING:
    from rekindle.data.augment import Augment


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the network's input.

    Attributes:
        image_size: Edge of the crop in pixels.
        mean: Per channel, of values in [0, 1].
        std: Per channel.
        interpolation: "bilinear", "bicubic" or another of `rekindle.data.cache.decode`, for the resize.
        flip: Mirror in training.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    flip: bool = True

    @classmethod
    def of(cls, loaded: LoadedModel, image_size: int = 0, flip: bool = True) -> "Preprocessing":
        """What a network's weights want; an `image_size` of 0 is that which they were trained on.

        Returns:
            Size, crop, mean and standard deviation as the weights want them.
        """
        return cls(image_size or loaded.input_size, loaded.mean, loaded.std, loaded.interpolation, flip)

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> "Preprocessing":
        """What `recipe` wrote into model.json.

        Returns:
            The preprocessing that the recipe was made of.
        """
        return cls(recipe["image_size"], tuple(recipe["mean"]), tuple(recipe["std"]), recipe["interpolation"])

    def recipe(self) -> dict[str, Any]:
        """All that prediction needs, as plain values.

        Returns:
            Values that JSON can hold; `from_recipe` reads them back.
        """
        return {"image_size": self.image_size, "mean": list(self.mean), "std": list(self.std), "interpolation": self.interpolation}

    @property
    def edge(self) -> int:
        """Shorter edge after the resize: the papers' 256 for a crop of 224, in proportion."""
        return round(self.image_size * 256 / 224)

    def pixels(self, picture: Picture | Image) -> np.ndarray:
        """One picture decoded and cropped at the centre, (S, S, 3) uint8.

        Returns:
            (S, S, 3) uint8, S the image size.

        Raises:
            Undecodable: If it is no picture.
        """
        read = decode_image if isinstance(picture, Image) else decode
        return center_crop(read(picture, self.edge, self.interpolation), self.image_size)  # type: ignore[arg-type]

    def normalize(self, pixels: np.ndarray) -> Tensor:
        """(B, S, S, 3) uint8 to (B, 3, S, S) float32.

        Returns:
            (B, 3, S, S) float32 on the device of the pixels.
        """
        return normalize(pixels, self.mean, self.std)


@dataclass
class Samples:
    """One split in memory-mapped pixels.

    Attributes:
        pixels: Pictures of all splits.
        indices: The split's rows there.
        labels: Their classes.
        preprocessing: How they become the network's input.
        workers: Threads that prepare the next batches meanwhile; nothing else depends on it.
        augment: What happens to training pictures beside crop and mirror.
        classes: How many there are; needed where pictures are mixed.
        views: How many different crops of a picture training shows, in turn; None draws a new one in each epoch.
    """

    pixels: Pixels
    indices: Tensor
    labels: Tensor
    preprocessing: Preprocessing
    workers: int = 0
    augment: "Augment | None" = None
    classes: int = 0
    views: int | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, rows: Tensor) -> "Samples":
        """Some of the pictures.

        Returns:
            Samples that share the pixels with these.
        """
        return replace(self, indices=self.indices[rows], labels=self.labels[rows])

    def training(self, rows: Tensor, seed: int, epoch: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, S, S) float32, cropped, mirrored and augmented at random, and labels (B,), or (B, C) shares where pictures are mixed.

        Rows from N on are repetitions within an epoch, as `balanced_order` gives them.

        Returns:
            (pictures, labels) on the device.
        """
        p, keys, places = self.preprocessing, self.keys(rows), rows % len(self)
        x = train_batch(
            self.pixels,
            self.indices[places],
            image_size=p.image_size,
            flip=p.flip,
            seed=seed,
            epoch=self.view(epoch),
            mean=p.mean,
            std=p.std,
            device=device,
            augment=self.augment,
            keys=keys,
        )
        y = self.labels[places].to(device, non_blocking=True)
        if self.augment is None or not self.augment.mixes:
            return x, y
        return self.augment.mix(x, y, self.classes, seed, epoch, keys.tolist())

    def view(self, epoch: int) -> int:
        """Which of its views an epoch (0-based) shows of each picture; the epoch itself where each has its own.

        Returns:
            A number from 0.
        """
        return epoch if self.views is None else epoch % self.views

    def keys(self, rows: Tensor) -> Tensor:
        """What a picture's random draws are keyed by, (B,) int64: its place among all pictures, and how often the epoch has shown it.

        Returns:
            (B,) int64, 0 or more.
        """
        return self.indices[rows % len(self)] + rows // len(self) * len(self.pixels)

    def evaluation(self, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """(B, 3, S, S) float32, cropped at the centre.

        Returns:
            (B, 3, S, S) float32 on the device.
        """
        p = self.preprocessing
        return eval_batch(self.pixels, self.indices[rows], image_size=p.image_size, mean=p.mean, std=p.std, device=device)


def samples_by_split(dataset: Dataset, pixels: Pixels, preprocessing: Preprocessing, **options: Any) -> dict[str, Samples]:
    """The samples of each split.

    Args:
        dataset: With its splits.
        pixels: Their pictures, one split after the other.
        preprocessing: How they become the network's input.
        options: Further ones of `Samples`.

    Returns:
        Samples for each split that has pictures.
    """
    splits, start = {}, 0
    for name, split in dataset.splits.items():
        rows = torch.arange(start, start + len(split.paths))
        splits[name] = Samples(pixels, rows, split.labels, preprocessing, classes=len(dataset.classes), **options)
        start += len(split.paths)
    return splits
