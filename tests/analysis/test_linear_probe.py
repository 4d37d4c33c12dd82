"""The linear probe against scikit-learn and closed forms; luck among pairs; the head's rate against how fast a head is fitted."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from rekindle.analysis.classification import beyond_luck
from rekindle.analysis.linear_probe import FOLDS, STRENGTHS, fit_probe, mean_square, unseen_halves
from rekindle.tuner.head_rate import KAPPA, head_rate, read_head_lr


def blobs(count: int, width: int, classes: int, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(classes, width, generator=stream)
    labels = torch.arange(count) % classes
    return centres[labels] + spread * torch.randn(count, width, generator=stream) + 5.0, labels


@pytest.mark.parametrize(("count", "width", "classes"), [(60, 200, 4), (200, 12, 5), (40, 30, 2)])
def test_it_is_the_regression_that_scikit_learn_fits_to_centred_features(count: int, width: int, classes: int) -> None:
    x, y = blobs(count, width, classes, spread=3.0)
    probe = fit_probe(x, y)
    centred = (x - x.mean(0)).double()
    length = centred.square().sum(1).mean().sqrt()
    twin = LogisticRegression(C=1 / (probe.strength * count), max_iter=5000, tol=1e-8).fit((centred / length).numpy(), y.numpy())
    wanted = torch.from_numpy(twin.predict_proba((centred / length).numpy()))
    assert probe.weight.shape == (classes, width) and probe.bias.shape == (classes,)
    assert torch.allclose(probe.probabilities(x), wanted, atol=0.02)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_it_does_not_depend_on_the_scale_of_the_features(scale: float) -> None:
    x, y = blobs(60, 40, 3, spread=3.0)
    one, other = fit_probe(x, y), fit_probe(scale * x, y)
    assert one.strength == other.strength and one.accuracy == other.accuracy
    assert torch.allclose(one.probabilities(x), other.probabilities(scale * x), atol=1e-3)


def test_cross_validation_sees_no_picture_that_it_was_fitted_to() -> None:
    """On labels that mean nothing, accuracy is that of guessing, though the fit tells all pictures apart."""
    stream = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 400, generator=stream), torch.arange(200) % 4
    probe = fit_probe(x, y)
    assert probe.accuracy is not None and probe.accuracy < 0.4
    assert probe.strength == max(STRENGTHS), "noise wants the strongest ridge"


@pytest.mark.parametrize(("least", "known"), [(1, False), (2, True), (FOLDS + 1, True)])
def test_small_classes(least: int, known: bool) -> None:
    x, y = blobs(30, 8, 2)
    kept = torch.cat([(y == 0).nonzero().flatten(), (y == 1).nonzero().flatten()[:least]])
    probe = fit_probe(x[kept], y[kept])
    assert (probe.accuracy is not None) == known and probe.probabilities(x).shape == (30, 2)


def test_beyond_luck() -> None:
    right, wrong = [True] * 9, [False] * 9
    assert beyond_luck(right, wrong) and not beyond_luck(wrong, right) and not beyond_luck(right, right)
    assert not beyond_luck([True, False], [False, False]), "one picture is luck"
    wins = [beyond_luck((draw := np.random.default_rng(seed).random((2, 100)) < 0.7)[0].tolist(), draw[1].tolist()) for seed in range(400)]
    assert np.mean(wins) == pytest.approx(0.16, abs=0.06), "a standard error is passed by luck in one case of six"


@pytest.mark.parametrize("length", [2.0, 7.0, 40.0])
def test_kappa_fits_a_head_in_as_many_steps_however_long_the_features_are(length: float) -> None:
    """Momentum 0.9, batches of 32: within 60 steps at the rate, far from it at a tenth of it."""
    x, y = blobs(320, 64, 8, spread=4.0)
    x = length * (x - x.mean(0)) / (x - x.mean(0)).square().sum(1).mean().sqrt()
    rate = head_rate(mean_square(x))
    assert rate * (mean_square(x) + 1) / (1 - 0.9) == pytest.approx(KAPPA)
    losses = []
    for lr in (rate, rate / 30):
        torch.manual_seed(0)
        head = nn.Linear(64, 8)
        nn.init.zeros_(head.weight)
        optimizer = torch.optim.SGD(head.parameters(), lr=lr, momentum=0.9)
        for step in range(60):
            rows = (torch.arange(32) + 32 * step) % 320
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimizer.step()
        losses.append(float(nn.functional.cross_entropy(head(x), y)))
    assert losses[0] < 0.4 * losses[1]


def test_short_features_do_not_make_the_bias_explode() -> None:
    assert head_rate(1e-6) <= KAPPA * 0.1


def test_what_a_heads_rate_may_be() -> None:
    assert [read_head_lr(value, 0.01) for value in ("tied", "x10", "x0.5", 0.2, "0.3")] == pytest.approx([0.01, 0.1, 0.005, 0.2, 0.3])
    for wrong in ("ten", "x", "x-1", 0.0, -1.0, float("nan"), "xinf"):
        with pytest.raises(ValueError, match="head_lr"):
            read_head_lr(wrong, 0.01)


def test_halves_are_new_to_each_others_probes() -> None:
    """The probe of a half depends on no label of the pictures that it is measured on, and the halves are all pictures."""
    x, y = blobs(60, 20, 4, spread=4.0)
    found = unseen_halves(x, y, 1e-3, seed=3)
    assert sorted(torch.cat([rows for rows, _ in found]).tolist()) == list(range(60))
    for place, (rows, probe) in enumerate(found):
        assert set(torch.bincount(y[rows]).tolist()) <= {7, 8}
        shuffled = y.clone()
        shuffled[rows] = y[rows][torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        centred = (x - x.mean(0)).double()
        rest = np.setdiff1d(np.arange(60), rows.numpy())
        length = centred.square().sum(1).mean().sqrt()
        twin = LogisticRegression(C=1 / (1e-3 * len(rest)), max_iter=5000, tol=1e-8).fit(
            (centred[rest] / length).numpy(), shuffled[rest].numpy()
        )
        assert torch.allclose(probe.probabilities(x), torch.from_numpy(twin.predict_proba((centred / length).numpy())), atol=0.02), place


def test_halves_leave_out_classes_that_the_other_half_lacks() -> None:
    x, y = blobs(20, 6, 2)
    y[0] = 2  # Its only picture.
    for rows, probe in unseen_halves(x, y, 1e-3, seed=0):
        assert 0 not in rows and len(rows) in (9, 10)
        assert probe.weight.shape == (3, 6) and bool((probe.probabilities(x).sum(1) - 1).abs().max() < 1e-9)
    for labels in (torch.arange(5), torch.tensor([0]), torch.tensor([0, 1, 1])):
        assert all(len(rows) for rows, _ in unseen_halves(torch.randn(len(labels), 4), labels, 1e-3, seed=0))
