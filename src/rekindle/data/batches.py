"""Batches whose content depends on (seed, epoch, sample) alone: not on rank, worker, batch size or what ran before."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rekindle.data.cache.pixels import Pixels
from rekindle.errors import UserError, number_of
from rekindle.rng import keyed_generator, uniform

if TYPE_CHECKING:
    from rekindle.data.augment import Augment

Triple = Sequence[float]
DRAWS = 3


def order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `count` samples for an epoch, (count,) int64.

    Args:
        count: Samples, at least 0.
        seed: Key of the order.
        epoch: Counted from 0; each has an order of its own.

    Returns:
        (count,) int64, each number from 0 to count - 1 once.

    Examples:
        >>> sorted(order(5, seed=0, epoch=0).tolist()), order(5, seed=0, epoch=0).equal(order(5, seed=0, epoch=0))
        ([0, 1, 2, 3, 4], True)
    """
    return torch.randperm(count, generator=keyed_generator(seed, "order", epoch))


def balanced_order(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """As many samples as there are, each class equally often (to within one), in random order, (N,) int64.

    A class with too few samples gives all of them over and over, one with too many some of them, others in each epoch. The k-th time
    (from 0) that an epoch shows sample i, it stands as i + k * N, so that its crop is drawn anew.

    Args:
        labels: (N,) int64; numbers without samples are passed over.
        seed: The run's seed.
        epoch: 0-based.

    Returns:
        (N,) int64. A number of N or more names a sample that the epoch shows again.

    Examples:
        >>> import torch
        >>> labels = torch.tensor([0] * 9 + [1])
        >>> labels[balanced_order(labels, seed=0, epoch=0) % 10].bincount().tolist()
        [5, 5]
    """
    stream = keyed_generator(seed, "balanced order", epoch)
    present, counts = labels.unique(return_counts=True)
    pools = labels.argsort(stable=True).split(counts.tolist())
    turns = torch.randperm(len(present), generator=stream).tolist()  # Who gets one more changes from epoch to epoch.
    least, more = divmod(len(labels), len(present))
    chosen = []
    for place, pool in enumerate(pools[turn] for turn in turns):
        wanted = least + (place < more)
        rounds = -(-wanted // len(pool))
        chosen.append(
            torch.cat([pool[torch.randperm(len(pool), generator=stream)] + turn * len(labels) for turn in range(rounds)])[:wanted]
        )
    drawn = torch.cat(chosen)
    return drawn[torch.randperm(len(drawn), generator=stream)]


def split_batches(count: int, batch_size: int, order: Tensor, world: int = 1) -> list[Tensor]:
    """Cut an order into batches; the last partial one is kept.

    A last batch with fewer than two samples a rank is joined to the one before: BatchNorm cannot train on one picture.

    Args:
        count: Samples in all.
        batch_size: Samples a step over all ranks.
        order: Permutation of the samples, (count,) int64.
        world: Number of ranks.

    Returns:
        Global batches, each (B,) int64; B is the batch size, but for a last one that is smaller or was joined to the one before.

    Raises:
        UserError: If there are fewer than two samples a rank in all, or in each batch.

    Examples:
        >>> [len(batch) for batch in split_batches(10, 4, order(10, seed=0, epoch=0))]
        [4, 4, 2]
        >>> [len(batch) for batch in split_batches(9, 4, order(9, seed=0, epoch=0))]
        [4, 5]
    """
    least = 2 * world
    if count < least:
        raise UserError(f"training needs at least {number_of(least, 'image')} on {number_of(world, 'device')}, found {count}.")
    if batch_size < least:
        raise UserError(
            f"--batch-size {batch_size} gives some of {number_of(world, 'device')} fewer than two images a step; use at least {least}."
        )
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def shard(batch: Tensor, rank: int, world: int) -> Tensor:
    """This rank's share of a global batch.

    Args:
        batch: (B,) int64, the same on every rank.
        rank: From 0 to world - 1.
        world: Ranks, at least 1.

    Returns:
        Every world-th entry of the batch, beginning with this rank's.

    Examples:
        >>> shard(torch.arange(5), rank=1, world=2).tolist()
        [1, 3]
    """
    return batch[rank::world]


def train_batch(
    pixels: Pixels, indices: Tensor, *, image_size: int, flip: bool, seed: int, epoch: int, mean: Triple, std: Triple,
    device: torch.device | str = "cpu", augment: "Augment | None" = None, keys: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Random crops, half of them mirrored if `flip`, normalised: (B, 3, S, S) float32, channels last in memory.

    Args:
        pixels: Decoded pictures, no edge shorter than `image_size`.
        indices: Positions in `pixels`, (B,) int64.
        image_size: Edge of the crop, S.
        flip: Mirror half of the pictures.
        seed: The run's seed.
        epoch: 0-based.
        mean: Per channel, of values in [0, 1].
        std: Per channel.
        device: Where the batch goes as uint8, to be mirrored and normalised there.
        augment: What else happens to each picture.
        keys: (B,) int64; what is drawn for a picture depends on (seed, epoch, its key) alone. By default `indices`.

    Returns:
        (B, 3, S, S) float32 on the device, S the image size.
    """
    samples, keys = indices.numpy(), indices if keys is None else keys
    draws = uniform(keys.numpy(), DRAWS, seed, "augment", epoch)
    room = pixels.shapes[samples] - image_size + 1
    if room.min() < 1:
        raise UserError(
            f"a crop of {image_size} pixels does not fit pictures decoded to a shorter edge of {pixels.shapes[samples].min()}; decode larger."
        )
    corners = (draws[:, :2] * room).astype(np.int64)
    crops = _room_for(len(samples), image_size, device)
    for slot, sample, (top, left) in zip(crops.numpy(), samples, corners, strict=True):
        slot[:] = pixels[sample][top : top + image_size, left : left + image_size]
    if augment is not None:
        augment.pictures_(crops, keys.tolist(), seed, epoch, mean)
    mirrored = np.flatnonzero((draws[:, 2] < 0.5) & flip)
    return normalize(_mirror_(crops.to(device, non_blocking=True), torch.from_numpy(mirrored)), mean, std)


def eval_batch(
    pixels: Pixels, indices: Tensor, *, image_size: int, mean: Triple, std: Triple, device: torch.device | str = "cpu"
) -> Tensor:
    """Centre crops, normalised on the device: (B, 3, S, S) float32, channels last in memory.

    Args:
        pixels: Decoded pictures, their shorter edge at least the image size.
        indices: (B,) which of them.
        image_size: Edge of the crop in pixels.
        mean: Of each channel, of values from 0 to 1.
        std: Of each channel, above 0.
        device: Where the batch is put and normalised.

    Returns:
        (B, 3, S, S) float32 on the device, S the image size.
    """
    crops = _room_for(len(indices), image_size, device)
    for slot, sample in zip(crops.numpy(), indices.numpy(), strict=True):
        slot[:] = center_crop(pixels[sample], image_size)
    return normalize(crops.to(device, non_blocking=True), mean, std)


def _room_for(count: int, size: int, device: torch.device | str) -> Tensor:
    """(B, S, S, 3) uint8 to be filled; for a GPU in pinned memory, from which it copies while the processor goes on."""
    return torch.empty((count, size, size, 3), dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda")


def _mirror_(images: Tensor, rows: Tensor) -> Tensor:
    """Mirror some of (B, H, W, 3) in place."""
    rows = rows.to(images.device, non_blocking=True)
    images[rows] = images[rows].flip(2)
    return images


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle `size` x `size` of (H, W, 3), its corner rounded as torchvision does.

    Returns:
        (size, size, 3) uint8, a view of the picture.

    Examples:
        >>> import numpy as np
        >>> center_crop(np.zeros((256, 300, 3), np.uint8), 224).shape
        (224, 224, 3)
    """
    top, left = (round((edge - size) / 2.0) for edge in image.shape[:2])
    return image[top : top + size, left : left + size]


def normalize(images: Tensor | np.ndarray, mean: Triple, std: Triple) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32 with (value / 255 - mean) / std on the same device, channels last in memory.

    Returns:
        (B, 3, H, W) float32 on the device of the images.

    Examples:
        >>> import torch
        >>> normalize(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).unique().tolist()
        [1.0]
    """
    images = torch.as_tensor(images)
    width = images.shape[2]
    scale = (1.0 / (255.0 * torch.tensor(std))).repeat(width).to(images.device, non_blocking=True)
    offset = (torch.tensor(mean) / torch.tensor(std)).repeat(width).to(images.device, non_blocking=True)
    # A whole row of pixels at a time: broadcasting over three channels is eight times slower.
    rows = images.float().reshape(-1, 3 * width)
    return rows.mul_(scale).sub_(offset).reshape(images.shape).permute(0, 3, 1, 2)


def preview(batch: Tensor, mean: Triple, std: Triple) -> np.ndarray:
    """Undo `normalize`: (B, H, W, 3) uint8, to look at.

    Args:
        batch: (B, 3, H, W) float, as `normalize` gives it.
        mean: What was subtracted.
        std: What was divided by.

    Returns:
        (B, H, W, 3) uint8, 0 to 255.
    """
    values = batch.cpu().permute(0, 2, 3, 1) * torch.tensor(std) + torch.tensor(mean)
    return (values * 255).round().clamp(0, 255).to(torch.uint8).numpy()
