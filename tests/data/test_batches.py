"""What is drawn for a picture depends on (seed, epoch, its index) alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import v2

from rekindle.data import Pixels, eval_batch, order, preview, shard, split_batches, train_batch
from rekindle.errors import UserError
from rekindle.rng import splitmix64, uniform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}
SIZE, EDGE = 28, 32


def store(images: list[np.ndarray]) -> Pixels:
    sizes = np.array([image.size for image in images])
    shapes = np.array([image.shape[:2] for image in images])
    return Pixels(np.concatenate([image.ravel() for image in images]), np.cumsum(sizes) - sizes, shapes, [""] * len(images))


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    rng = np.random.default_rng(0)
    sides = [(EDGE, EDGE + 3 * (i % 5)) if i % 2 else (EDGE + 2 * (i % 7), EDGE) for i in range(30)]
    return store([rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides])


def coordinates(count: int, height: int, width: int) -> Pixels:
    """Pictures whose pixels say where they are: red the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return store([np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)] * count)


def draws(pixels: Pixels, rows: torch.Tensor, seed: int = 0, epoch: int = 0, flip: bool = True) -> torch.Tensor:
    return train_batch(pixels, rows, image_size=SIZE, flip=flip, seed=seed, epoch=epoch, mean=MEAN, std=STD)


def test_splitmix64_is_the_published_stream() -> None:
    """First outputs for seed 0 of the reference implementation (prng.di.unimi.it/splitmix64.c)."""
    found = splitmix64(np.arange(4, dtype=np.uint64)).tolist()
    assert found == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]


def test_uniform_is_a_literal() -> None:
    """A change here changes every seeded run."""
    assert uniform(np.array([0, 5]), 3, 1, "augment", 2).round(9).tolist() == [
        [0.888031472, 0.549129622, 0.005762263],
        [0.231658429, 0.266842215, 0.885247138],
    ]


def test_uniform_is_uniform_and_independent() -> None:
    found = uniform(np.arange(20_000), 3, 0, "augment", 0)
    assert found.min() >= 0
    assert found.max() < 1
    for column in found.T:
        assert chisquare(np.histogram(column, 50, (0, 1))[0]).pvalue > 1e-4
    later = uniform(np.arange(20_000), 3, 0, "augment", 1)
    assert (
        np.abs(np.corrcoef(np.concatenate([found.T, later.T, uniform(np.arange(20_000), 3, 1, "augment", 0).T])) - np.eye(9)).max() < 0.04
    )


def test_a_draw_does_not_depend_on_the_batch_or_the_rank(pixels: Pixels) -> None:
    rows = order(30, 1, 4)
    whole = draws(pixels, rows, epoch=4)
    for size in (1, 7, 30):
        assert torch.equal(torch.cat([draws(pixels, part, epoch=4) for part in rows.split(size)]), whole)
    for world in (2, 3):
        for rank in range(world):
            assert torch.equal(draws(pixels, shard(rows, rank, world), epoch=4), shard(whole, rank, world))


def test_seed_and_epoch_change_the_draw_and_nothing_global_does(pixels: Pixels) -> None:
    rows = torch.arange(30)
    first = draws(pixels, rows)
    state, legacy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(draws(pixels, rows), first)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == legacy).all()
    assert not torch.equal(draws(pixels, rows, seed=1), first)
    assert not torch.equal(draws(pixels, rows, epoch=1), first)


def test_crops_are_uniform_over_all_places_and_half_are_mirrored() -> None:
    height, width, size, count = 34, 37, 30, 6000
    found = train_batch(coordinates(count, height, width), torch.arange(count), image_size=size, flip=True, seed=0, epoch=0, **PLAIN)
    tops, lefts = found[:, 0, 0, 0].int(), found[:, 1, 0].min(1).values.int()
    mirrored = found[:, 1, 0, 0] > found[:, 1, 0, 1]
    places = torch.bincount(tops * (width - size + 1) + lefts, minlength=(height - size + 1) * (width - size + 1))
    assert len(places) == 5 * 8
    assert chisquare(places.numpy()).pvalue > 1e-4
    assert abs(mirrored.float().mean() - 0.5) < 0.03
    for left in range(8):
        assert 0.4 < mirrored[lefts == left].float().mean() < 0.6


def test_a_mirrored_crop_is_the_unmirrored_one_reversed(pixels: Pixels) -> None:
    rows = torch.arange(30)
    plain, free = draws(pixels, rows, flip=False), draws(pixels, rows)
    same = torch.tensor([torch.equal(a, b) for a, b in zip(plain, free, strict=True)])
    back = torch.tensor([torch.equal(a.flip(-1), b) for a, b in zip(plain, free, strict=True)])
    assert (same ^ back).all()
    assert same.any()
    assert back.any()


def test_a_crop_is_cut_from_its_own_picture(pixels: Pixels) -> None:
    found = preview(draws(pixels, torch.arange(30), flip=False), MEAN, STD)
    for index in range(30):
        windows = np.lib.stride_tricks.sliding_window_view(pixels[index], (SIZE, SIZE, 3))[..., 0, :, :, :]
        assert (windows == found[index]).all((-1, -2, -3)).any()


@pytest.mark.parametrize("size", [(300, 200), (201, 333), (97, 97), (50, 81), (37, 500)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("image_size", [32, 33])
def test_evaluation_is_torchvisions_resize_and_centre_crop(
    size: tuple[int, int], interpolation: str, image_size: int, tmp_path: Path
) -> None:
    image = Image.fromarray(np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    edge = round(256 / 224 * image_size)
    crop = v2.Compose([v2.Resize(edge, v2.InterpolationMode(interpolation)), v2.CenterCrop(image_size)])(image)
    loaded = Pixels.load([tmp_path / "a.png"], edge, interpolation)
    found = eval_batch(loaded, torch.tensor([0]), image_size=image_size, mean=MEAN, std=STD)
    assert (preview(found, MEAN, STD)[0] == np.asarray(crop)).all()
    wanted = v2.Normalize(MEAN, STD)(v2.functional.to_dtype(v2.functional.pil_to_tensor(crop), torch.float32, scale=True))
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mean_std", [(MEAN, STD), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))])
def test_preview_undoes_normalisation_for_every_value(mean_std: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    image = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, 2)
    mean, std = mean_std
    batch = eval_batch(store([image]), torch.tensor([0]), image_size=16, mean=mean, std=std)
    assert (preview(batch, mean, std)[0] == image).all()


def test_batches_are_float32_and_channels_last(pixels: Pixels) -> None:
    for found in (draws(pixels, torch.arange(5)), eval_batch(pixels, torch.arange(5), image_size=SIZE, mean=MEAN, std=STD)):
        assert found.shape == (5, 3, SIZE, SIZE)
        assert found.dtype == torch.float32
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_crop_larger_than_the_pictures_is_refused(pixels: Pixels) -> None:
    with pytest.raises(UserError, match="a crop of 33 pixels does not fit pictures decoded to a shorter edge of 32"):
        train_batch(pixels, torch.arange(30), image_size=33, flip=True, seed=0, epoch=0, mean=MEAN, std=STD)


def test_order_is_a_permutation_keyed_by_seed_and_epoch() -> None:
    first = order(50, 0, 0)
    assert first.dtype == torch.int64
    assert first.sort().values.tolist() == list(range(50))
    assert torch.equal(order(50, 0, 0), first)
    assert len({tuple(order(50, seed, epoch).tolist()) for seed in range(3) for epoch in range(3)}) == 9


@given(count=st.integers(2, 300), batch_size=st.integers(2, 70), world=st.integers(1, 4))
def test_batches_hold_each_sample_once_and_feed_each_rank(count: int, batch_size: int, world: int) -> None:
    least = 2 * world
    rows = order(count, 0, 0)
    if count < least or batch_size < least:
        with pytest.raises(UserError):
            split_batches(count, batch_size, rows, world)
        return
    parts = split_batches(count, batch_size, rows, world)
    assert torch.equal(torch.cat(parts), rows)
    assert all(len(part) == batch_size for part in parts[:-1])
    assert least <= len(parts[-1]) < batch_size + least or len(parts) == 1
    assert all(len(shard(part, rank, world)) >= 2 for part in parts for rank in range(world))
    for part in parts:
        shards = torch.cat([shard(part, rank, world) for rank in range(world)])
        assert sorted(shards.tolist()) == sorted(part.tolist())


def test_literal_batch_sizes() -> None:
    def sizes(count: int, batch_size: int, world: int = 1) -> list[int]:
        return [len(part) for part in split_batches(count, batch_size, torch.arange(count), world)]

    assert sizes(10, 4) == [4, 4, 2]
    assert sizes(9, 4) == [4, 5]
    assert sizes(3, 32) == [3]
    assert sizes(11, 4, world=2) == [4, 7]
    assert sizes(12, 4, world=2) == [4, 4, 4]


@pytest.mark.parametrize(
    ("count", "batch_size", "world", "text"),
    [
        (1, 8, 1, r"training needs at least 2 images on 1 device, found 1\."),
        (3, 8, 2, r"training needs at least 4 images on 2 devices, found 3\."),
        (9, 1, 1, r"--batch-size 1 gives some of 1 device fewer than two images a step; use at least 2\."),
        (9, 3, 2, r"--batch-size 3 gives some of 2 devices fewer than two images a step; use at least 4\."),
    ],
)
def test_too_little_to_train_on(count: int, batch_size: int, world: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        split_batches(count, batch_size, torch.arange(count), world)
