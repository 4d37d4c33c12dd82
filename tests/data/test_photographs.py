"""Real photographs, where they lie beside the project."""

import shutil
import time
from pathlib import Path

import pytest
import torch

from rekindle.data import Pixels, duplicates, open_data, train_batch

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_clothing_is_used_as_it_is_split(shared: Path) -> None:
    found = open_data(shared / "data/clothing", seed=0)
    assert {name: len(split.paths) for name, split in found.splits.items()} == {"train": 3068, "val": 341, "test": 372}
    assert found.classes == ["dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt"]
    assert min(found.counts()["train"].values()) == 112
    assert max(found.counts()["train"].values()) == 795
    assert found.notes == []
    for split in found.splits.values():
        assert all(path.parent.name == found.classes[label] for path, label in zip(split.paths, split.labels.tolist(), strict=True))


def test_sign_digits_gets_a_validation_split_and_keeps_its_test(shared: Path) -> None:
    found = open_data(shared / "data/sign_digits", seed=0)
    assert {name: len(split.paths) for name, split in found.splits.items()} == {"train": 800, "val": 200, "test": 1062}
    assert set(found.counts()["val"].values()) == {20}
    few = open_data(shared / "data/sign_digits", seed=0, per_class=10)
    assert {name: len(split.paths) for name, split in few.splits.items()} == {"train": 100, "val": 20, "test": 1062}


def test_photographs_decode_and_become_batches(shared: Path) -> None:
    found = open_data(shared / "data/clothing", seed=0, per_class=3)
    paths = [path for split in ("train", "val") for path in found.splits[split].paths[:60]]
    pixels = Pixels.load(paths, 146)
    assert (pixels.shapes.min(1) == 146).all()
    batch = train_batch(pixels, torch.arange(len(paths)), image_size=128, flip=True, seed=0, epoch=0, mean=MEAN, std=STD)
    assert batch.shape == (90, 3, 128, 128)
    assert batch.isfinite().all()
    assert 0.3 < batch.std() < 2


def test_a_photograph_that_stands_in_two_splits_is_found(shared: Path, tmp_path: Path) -> None:
    source = open_data(shared / "data/sign_digits", seed=0, per_class=4)
    for name in ("train", "test"):
        for path, label in zip(source.splits[name].paths, source.splits[name].labels.tolist(), strict=True):
            target = tmp_path / name / str(label) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    leak = tmp_path / "test/7/leak.jpg"
    original = next((tmp_path / "train/7").iterdir())
    shutil.copyfile(original, leak)
    found = open_data(tmp_path, seed=0)
    hashes = Pixels.load([path for split in found.splits.values() for path in split.paths], 16).hashes
    assert (found.relative(original), "test/7/leak.jpg") in duplicates(found, hashes)


@pytest.mark.slow
def test_one_core_makes_thousands_of_pictures_a_second(shared: Path) -> None:
    """At least 3,000 of 128 pixels a second of processor time; about 11,000 were measured on an idle core."""
    pixels = Pixels.load(open_data(shared / "data/clothing", seed=0).splits["val"].paths[:128], 146)
    rows = torch.arange(len(pixels)).split(32)
    spent = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for epoch in range(8):
            began = time.process_time()
            for part in rows:
                train_batch(pixels, part, image_size=128, flip=True, seed=0, epoch=epoch, mean=MEAN, std=STD)
            spent.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    assert len(pixels) / min(spent) > 3000
