"""Batches whose content depends on (seed, epoch, sample) alone: not on rank, worker, batch size or what ran before."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rekindle.data.pixels import Pixels
from rekindle.errors import UserError
from rekindle.method import generator

Triple = Sequence[float]
DRAWS = 3


def order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `count` samples for an epoch."""
    return torch.randperm(count, generator=generator(seed, "order", epoch))


def batches(count: int, batch_size: int, order: Tensor, world: int = 1) -> list[Tensor]:
    """Cut an order into batches; the last partial one is kept.

    A last batch with fewer than two samples a rank is joined to the one before: BatchNorm cannot train on one picture.

    Raises:
        UserError: If there are fewer than two samples a rank in all.
    """
    least = 2 * world
    if count < least:
        raise UserError(f"training needs at least {least} images on {world} device(s), found {count}.")
    parts = list(order.split(max(batch_size, least)))
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def shard(batch: Tensor, rank: int, world: int) -> Tensor:
    """This rank's share of a global batch."""
    return batch[rank::world]


def uniform(seed: int, epoch: int, samples: np.ndarray) -> np.ndarray:
    """(N, 3) float64 in [0, 1) for each sample: a counter-based hash (splitmix64's finaliser), vectorised over samples."""
    base = generator(seed, "augment", epoch).initial_seed()
    with np.errstate(over="ignore"):
        counter = np.uint64(base) + samples.astype(np.uint64)[:, None] * np.uint64(DRAWS) + np.arange(DRAWS, dtype=np.uint64)
        z = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def train_batch(
    pixels: Pixels, indices: Tensor, *, image_size: int, flip: bool, seed: int, epoch: int, mean: Triple, std: Triple
) -> Tensor:
    """Random crops, half of them mirrored if `flip`, normalised: (B, 3, S, S) float32, channels last in memory."""
    samples = indices.numpy()
    draws = uniform(seed, epoch, samples)
    room = pixels.shapes[samples] - image_size + 1
    corners = (draws[:, :2] * room).astype(np.int64)
    mirrored = (draws[:, 2] < 0.5) & flip
    crops = np.empty((len(samples), image_size, image_size, 3), np.uint8)
    for slot, (sample, (top, left), mirror) in enumerate(zip(samples, corners, mirrored, strict=True)):
        crop = pixels[sample][top : top + image_size, left : left + image_size]
        crops[slot] = crop[:, ::-1] if mirror else crop
    return normalise(crops, mean, std)


def eval_batch(pixels: Pixels, indices: Tensor, *, image_size: int, mean: Triple, std: Triple) -> Tensor:
    """Centre crops, normalised: (B, 3, S, S) float32, channels last in memory."""
    return normalise(np.stack([centre(pixels[sample], image_size) for sample in indices.numpy()]), mean, std)


def centre(image: np.ndarray, size: int) -> np.ndarray:
    """The middle `size` x `size` of (H, W, 3), its corner rounded as torchvision does."""
    top, left = (round((edge - size) / 2.0) for edge in image.shape[:2])
    return image[top : top + size, left : left + size]


def normalise(images: np.ndarray, mean: Triple, std: Triple) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 with (value / 255 - mean) / std."""
    values = torch.from_numpy(images).float()
    scale = 1.0 / (255.0 * torch.tensor(std))
    return (values * scale - torch.tensor(mean) / torch.tensor(std)).permute(0, 3, 1, 2)


def preview(batch: Tensor, mean: Triple, std: Triple) -> np.ndarray:
    """Undo `normalise`: (B, H, W, 3) uint8, to look at."""
    values = batch.permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return (values * 255).round().clamp(0, 255).to(torch.uint8).numpy()
