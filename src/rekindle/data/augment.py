"""Augmentation beyond crop and mirror, by torchvision's transforms (v2). What is drawn depends on (seed, epoch, sample) alone.

Pictures are augmented one by one as uint8, before they are mirrored and normalised; mixup and cutmix mix a whole batch after.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Interval
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2

from rekindle.errors import UserError
from rekindle.rng import keyed_generator
from rekindle.spec import Share, check_fields

Strength = Annotated[float, Interval(ge=1e-3, le=100)]


class _Checked:
    """What an augmentation is called, and a check of its options.

    Attributes:
        name: In `--augment`.
    """

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Refuse options that their annotations do not allow."""
        check_fields(f"{self.name}: ", self)


@dataclass(frozen=True)
class Augmentation(_Checked, ABC):
    """Changes pictures one by one."""

    @abstractmethod
    def transform(self, fill: tuple[int, int, int]) -> v2.Transform:
        """torchvision's; `fill` is the colour of what is left empty.

        Returns:
            A transform of torchvision for RGB pictures of PIL.
        """


@dataclass(frozen=True)
class RandAugment(Augmentation):
    """A few random operations on colours and geometry (Cubuk, Zoph, Shlens, Le, CVPR Workshops 2020, arXiv 1909.13719).

    Args:
        num_ops: Operations a picture, from 1 to 20.
        magnitude: Strength of each, from 0 to 30.
    """

    num_ops: Annotated[int, Interval(ge=1, le=20)] = 2
    magnitude: Annotated[int, Interval(ge=0, le=30)] = 9

    name: ClassVar[str] = "randaugment"

    def transform(self, fill: tuple[int, int, int]) -> v2.Transform:
        return v2.RandAugment(self.num_ops, self.magnitude, fill=list(fill))


@dataclass(frozen=True)
class TrivialAugment(Augmentation):
    """One random operation of any strength a picture, with nothing to set (Müller, Hutter, ICCV 2021, arXiv 2103.10158, wide space)."""

    name: ClassVar[str] = "trivial_augment"

    def transform(self, fill: tuple[int, int, int]) -> v2.Transform:
        return v2.TrivialAugmentWide(fill=list(fill))


@dataclass(frozen=True)
class ColorJitter(Augmentation):
    """Random brightness, contrast, saturation and hue.

    Args:
        brightness: The factor is drawn from 1 - brightness to 1 + brightness; at least 0, at most 1.
        contrast: Likewise.
        saturation: Likewise.
        hue: Shift drawn from -hue to hue, in turns of the colour circle; at most 0.5.
    """

    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.0

    name: ClassVar[str] = "color_jitter"

    def transform(self, fill: tuple[int, int, int]) -> v2.Transform:
        return v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue)


@dataclass(frozen=True)
class RandomErasing(Augmentation):
    """Cover a random rectangle with the mean colour (Zhong, Zheng, Kang, Li, Yang, AAAI 2020, arXiv 1708.04896).

    Args:
        p: Probability for a picture, from 0 to 1.
        least: Smallest share of the area, at least 0.
        most: Largest share of the area, from `least` to 1.
    """

    p: Share = 0.25
    least: Share = 0.02
    most: Share = 0.33

    name: ClassVar[str] = "random_erasing"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most < self.least:
            raise UserError(f"random_erasing: most must be at least as large as least, {self.least!r}, found {self.most!r}.")

    def transform(self, fill: tuple[int, int, int]) -> v2.Transform:
        return v2.RandomErasing(self.p, (self.least, self.most), value=list(fill))


@dataclass(frozen=True)
class Mixing(_Checked, ABC):
    """Mixes each picture of a batch with another, and their labels with them.

    Args:
        alpha: Both parameters of the beta distribution that the share is drawn from, from 0.001 to 100.
    """

    alpha: Strength = 1.0

    @abstractmethod
    def mixer(self, classes: int) -> v2.Transform:
        """torchvision's, for ((B, 3, S, S) float32, (B,) int64).

        Returns:
            A transform of torchvision from pictures (B, 3, S, S) float32 and labels (B,) int64 to mixed pictures and label shares (B, C).
        """


@dataclass(frozen=True)
class Mixup(Mixing):
    """Blend pictures (Zhang, Cisse, Dauphin, Lopez-Paz, ICLR 2018, arXiv 1710.09412).

    Args:
        alpha: Both parameters of the beta distribution that the share is drawn from, from 0.001 to 100.
    """

    alpha: Strength = 0.2

    name: ClassVar[str] = "mixup"

    def mixer(self, classes: int) -> v2.Transform:
        return v2.MixUp(alpha=self.alpha, num_classes=classes)


@dataclass(frozen=True)
class Cutmix(Mixing):
    """Paste a rectangle of another picture (Yun, Han, Oh, Chun, Choe, Yoo, ICCV 2019, arXiv 1905.04899).

    Args:
        alpha: Both parameters of the beta distribution that the share is drawn from, from 0.001 to 100.
    """

    alpha: Strength = 1.0

    name: ClassVar[str] = "cutmix"

    def mixer(self, classes: int) -> v2.Transform:
        return v2.CutMix(alpha=self.alpha, num_classes=classes)


KINDS: dict[str, type[Augmentation] | type[Mixing]] = {
    kind.name: kind for kind in (RandAugment, TrivialAugment, ColorJitter, RandomErasing, Mixup, Cutmix)
}


@dataclass(frozen=True)
class Augment:
    """Any number of augmentations, in order; of several that mix, one is drawn for each batch.

    Args:
        parts: The augmentations.
    """

    parts: tuple[Augmentation | Mixing, ...] = ()

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return any(isinstance(part, Mixing) for part in self.parts)

    def pictures_(self, crops: Tensor, samples: Sequence[int], seed: int, epoch: int, mean: Sequence[float]) -> None:
        """Change crops in place, each by draws of its own.

        Args:
            crops: (B, S, S, 3) uint8 on the CPU.
            samples: B indices, which the draws are keyed by.
            seed: The run's seed.
            epoch: 0-based.
            mean: Colour of what is left empty, in [0, 1].
        """
        single = tuple(part for part in self.parts if isinstance(part, Augmentation))
        if not single:
            return
        apply = _composed(single, tuple(round(255 * value) for value in mean))
        # PIL's operations take less than half the time of those that torchvision has for tensors, and differ by rounding.
        for crop, sample in zip(crops.numpy(), samples, strict=True):
            with UseGenerator(keyed_generator(seed, "augment more", epoch, int(sample))):
                crop[:] = np.asarray(apply(Image.fromarray(crop)))

    def mix(self, x: Tensor, labels: Tensor, classes: int, seed: int, epoch: int, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mix a batch with itself.

        Args:
            x: (B, 3, S, S) float32.
            labels: (B,) int64.
            classes: C.
            seed: The run's seed.
            epoch: 0-based.
            samples: B indices, which the draws are keyed by.

        Returns:
            Mixed pictures, channels last in memory, and (B, C) float32, the share of each class.
        """
        mixers = [part.mixer(classes) for part in self.parts if isinstance(part, Mixing)]
        with UseGenerator(keyed_generator(seed, "mix", epoch, *map(int, samples))):
            mixed, shares = (mixers[0] if len(mixers) == 1 else v2.RandomChoice(mixers))(x, labels)
        return mixed.contiguous(memory_format=torch.channels_last), shares


class UseGenerator(TorchFunctionMode):
    """Let torch's random functions draw from `stream`, in this thread alone.

    torchvision's transforms know torch's global generator only. All threads share that one: a worker that seeded it would change
    what the network's dropout draws meanwhile.
    """

    def __init__(self, stream: torch.Generator) -> None:
        super().__init__()
        self._stream = stream

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, with the stream if it draws."""
        options = dict(kwargs or {})
        if func in RANDOM and options.get("generator") is None:
            options["generator"] = self._stream
        return func(*args, **options)


RANDOM = {
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal, torch.bernoulli, torch.multinomial, torch._sample_dirichlet,
    torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.bernoulli_, torch.Tensor.random_,
    torch.Tensor.multinomial, torch.Tensor.bernoulli, torch.Tensor.exponential_,
}  # fmt: skip


@lru_cache(maxsize=16)
def _composed(parts: tuple[Augmentation, ...], fill: tuple[int, int, int]) -> v2.Transform:
    return v2.Compose([part.transform(fill) for part in parts])
