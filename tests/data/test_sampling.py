"""Subsets by share, balanced order, and what is told of uneven or repeated pictures."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.data import Dataset, Pixels, balanced_order, contradictions, duplicates, imbalance, open_data
from rekindle.data.dataset import Split
from rekindle.data.samples import Preprocessing, Samples
from rekindle.errors import UserError
from rekindle.spec import RunSpec

from .pictures import listed
from .test_folders import many, touch


def folder(root: Path, **counts: int) -> Path:
    return touch(
        root, *(name for label, count in counts.items() for name in many(f"train/{label}", count)), *many("test/a", 3), *many("test/b", 3)
    )


def subset(root: Path, **options: float) -> set[str]:
    """Names of the pictures that are trained on."""
    return {*listed(open_data(root, **options), "train")}  # type: ignore[arg-type]


@pytest.mark.parametrize(("fraction", "a", "b"), [(0.15, 15, 3), (0.3, 30, 6), (0.5, 50, 10), (1.0, 80, 16), (0.001, 1, 1)])
def test_a_share_of_each_class(fraction: float, a: int, b: int, tmp_path: Path) -> None:
    found = open_data(folder(tmp_path, a=100, b=20), fraction=fraction)
    assert found.counts()["train"] == {"a": a, "b": b}
    assert found.counts()["test"] == {"a": 3, "b": 3}
    assert found.to_json()["fraction"] == fraction


def test_shares_are_nested_and_agree_with_per_class(tmp_path: Path) -> None:
    root = folder(tmp_path, a=40, b=40)
    taken = [subset(root, fraction=fraction) for fraction in (0.05, 0.15, 0.3, 0.5, 0.8)]
    assert all(small < large for small, large in pairwise(taken))
    assert subset(root, fraction=0.25) == subset(root, per_class=10)
    assert subset(root, fraction=0.25, seed=1) != subset(root, fraction=0.25, seed=2)


def test_a_share_keeps_what_other_classes_hold(tmp_path: Path) -> None:
    """A picture is chosen by its own name and class alone."""
    few, more = folder(tmp_path / "1", a=40, b=10), folder(tmp_path / "2", a=40, b=30)
    assert {name for name in subset(few, fraction=0.3) if "/a/" in name} == {name for name in subset(more, fraction=0.3) if "/a/" in name}


def test_with_a_validation_folder_one_picture_is_enough(tmp_path: Path) -> None:
    root = touch(folder(tmp_path, a=10, b=10), *many("val/a", 2), *many("val/b", 2))
    assert open_data(root, fraction=0.01).counts()["train"] == {"a": 1, "b": 1}


def test_what_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, a=10, b=10)
    with pytest.raises(UserError, match=r"per_class \(5\) and fraction \(0.5\) both choose a subset; give one of them"):
        open_data(root, per_class=5, fraction=0.5)
    for fraction in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match="fraction must lie above 0 and not above 1"):
            open_data(root, fraction=fraction)
    with pytest.raises(UserError, match="--fraction 0.5 and --per-class 5 both choose"):
        RunSpec("x", fraction=0.5, per_class=5)
    with pytest.raises(UserError, match="--fraction must be .* at most 1 .*found 15"):
        RunSpec("x", fraction=15)
    with pytest.raises(UserError, match="would even classes out twice"):
        RunSpec("x", sampler="balanced", class_weights="balanced")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 5))
def test_balanced_order(counts: list[int], seed: int, epoch: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    drawn = balanced_order(labels, seed, epoch)
    assert len(drawn) == len(labels) and drawn.dtype == torch.int64 and len(drawn.unique()) == len(drawn)
    drawn = drawn % len(labels)
    share = torch.bincount(labels[drawn], minlength=len(counts))
    assert share.max() - share.min() <= 1
    for label in range(len(counts)):
        # No picture comes again before all of its class came.
        times = torch.bincount(drawn, minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1
    assert torch.equal(drawn, balanced_order(labels, seed, epoch) % len(labels))


def test_balanced_order_changes_with_seed_and_epoch_and_shows_every_picture() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    assert not torch.equal(balanced_order(labels, 0, 0), balanced_order(labels, 0, 1))
    assert not torch.equal(balanced_order(labels, 0, 0), balanced_order(labels, 1, 0))
    seen = torch.cat([balanced_order(labels, 0, epoch) % 100 for epoch in range(12)]).unique()
    assert len(seen) == 100


def test_balanced_order_is_the_same_everywhere() -> None:
    assert balanced_order(torch.tensor([0, 0, 0, 0, 0, 1]), 0, 0).tolist() == [1, 5 + 6 * 2, 0, 5 + 6, 2, 5]


def test_a_picture_shown_again_in_an_epoch_is_cropped_anew() -> None:
    """Row 1 again stands as 1 + 2; its crop differs, its label does not."""
    rng = np.random.default_rng(0)
    pixels = Pixels(rng.integers(0, 256, 3 * 40 * 40 * 3, dtype=np.uint8), np.arange(3) * 4800, np.full((3, 2), 40), [""] * 3)
    train = Samples(pixels, torch.tensor([1, 2]), torch.tensor([7, 8]), Preprocessing(35, (0.0,) * 3, (1.0,) * 3))
    x, y = train.training(torch.tensor([0, 1, 3]), 0, 0)
    assert y.tolist() == [7, 8, 8] and train.keys(torch.tensor([0, 1, 3])).tolist() == [1, 2, 5]
    alone, _ = train.training(torch.tensor([1]), 0, 0)
    assert torch.equal(x[1], alone[0]) and not torch.equal(x[1], x[2])


def test_imbalance() -> None:
    assert imbalance({"a": 10, "b": 40, "c": 20}) == {"largest": "b", "most": 40, "smallest": "a", "fewest": 10, "ratio": 4.0}


def test_equal_pictures_between_splits_and_with_two_labels(tmp_path: Path) -> None:
    def split(label: list[int], *names: str) -> Split:
        return Split([tmp_path / name for name in names], torch.tensor(label))

    data = Dataset(tmp_path, ["a", "b"], {"train": split([0, 1, 1, 0], "1", "2", "3", "4"), "test": split([0, 1], "5", "6")})
    hashes = ["x", "y", "x", "z", "z", "x"]
    assert contradictions(data, hashes) == [("1", "3"), ("1", "6")]
    assert duplicates(data, hashes) == [("4", "5"), ("1", "6")]
