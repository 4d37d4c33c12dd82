"""DisturbLabel (label C2), in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rekindle import Net, Source
from rekindle.method import Clock
from rekindle.methods.noise.disturb_label import DisturbLabel, count_classes, disturb

CLOCK = Clock(3, 8, 1, 10, seed=5)


def attached(gamma: float = 0.2, classes: int = 4) -> DisturbLabel:
    method = DisturbLabel(gamma)
    model = nn.Sequential(nn.Linear(2, classes))
    method.attach(Net(model, ("0",), {}), Source(model))
    return method


def test_c2_shares_of_labels() -> None:
    found = disturb(torch.zeros(200_000, dtype=torch.int64), np.arange(200_000), 0.2, 4, "test")
    shares = torch.bincount(found, minlength=4).double() / len(found)
    assert shares.tolist() == pytest.approx([0.85, 0.05, 0.05, 0.05], abs=0.002)


def test_c2_expected_loss_is_label_smoothing() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits, torch.tensor([label])) for label in range(4)])
    assert losses[0].item() == pytest.approx(0.440189698561, abs=1e-12)
    assert (losses @ torch.tensor([0.85, 0.05, 0.05, 0.05], dtype=torch.float64)).item() == pytest.approx(0.740189698561, abs=1e-12)
    assert F.cross_entropy(logits, torch.tensor([0]), label_smoothing=0.2).item() == pytest.approx(0.740189698561, abs=1e-12)
    labels = attached().labels(torch.zeros(100_000, dtype=torch.int64), torch.arange(100_000), CLOCK)
    assert losses[labels].mean().item() == pytest.approx(0.740189698561, abs=0.01)


def test_draws_follow_the_image_and_not_its_place_in_the_batch() -> None:
    method, labels, indices = attached(0.9), torch.arange(60) % 4, torch.arange(60) * 7
    found = method.labels(labels, indices, CLOCK)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(method.labels(labels[order], indices[order], Clock(3, 8, 9, 10, 2, 5, 1)), found[order])
    for other in (Clock(4, 8, 1, 10, seed=5), Clock(3, 8, 1, 10, seed=6)):
        assert not torch.equal(method.labels(labels, indices, other), found)


def test_without_indices_the_place_in_the_run_is_the_key() -> None:
    method, labels = attached(0.9), torch.arange(60) % 4
    found = method.labels(labels, None, CLOCK)
    assert torch.equal(method.labels(labels, None, CLOCK), found)
    for other in (Clock(3, 8, 2, 10, seed=5), Clock(3, 8, 1, 10, 1, seed=5), Clock(3, 8, 1, 10, seed=5, rank=1)):
        assert not torch.equal(method.labels(labels, None, other), found)


def test_clean_labels_type_and_global_generator_stay() -> None:
    labels = torch.arange(60, dtype=torch.int32) % 4
    method, kept = attached(1.0), labels.clone()
    state = torch.get_rng_state()
    found = method.labels(labels, None, CLOCK)
    assert torch.equal(labels, kept) and found.dtype == torch.int32 and int(found.min()) == 0 and int(found.max()) == 3
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_to_disturb() -> None:
    labels = torch.arange(60) % 4
    assert attached(0.0).labels(labels, None, CLOCK) is labels
    assert torch.equal(attached(1.0, 1).labels(torch.zeros(9, dtype=torch.int64), None, CLOCK), torch.zeros(9, dtype=torch.int64))


def test_the_head_tells_the_number_of_classes() -> None:
    head = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Conv2d(7, 5, 1), nn.AdaptiveAvgPool2d(1))
    assert count_classes(Net(nn.Sequential(head), ("0",), {})) == 5
    assert count_classes(Net(nn.Sequential(nn.BatchNorm1d(6)), ("0",), {})) == 6
    with pytest.raises(ValueError, match="does not tell the number of classes"):
        count_classes(Net(nn.Sequential(nn.Identity()), ("0",), {}))


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan"), float("inf"), "0.1", True])
def test_arguments_are_checked(gamma: object) -> None:
    with pytest.raises(ValueError, match=f"disturb_label: gamma must .*0 .*1, found {gamma!r}"):
        DisturbLabel(gamma=gamma)  # type: ignore[arg-type]
