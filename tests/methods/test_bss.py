"""Batch spectral shrinkage in float64: the oracle of METHODS' section 7, and what feeds it."""

import copy

import pytest
import torch
from torch import nn

from rekindle import Net, Source
from rekindle.method import Batch, Clock
from rekindle.methods.penalties.bss import BSS, smallest_squares
from tests.toys import toy_batch, toy_tuner

MATRIX = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)


def test_bss_oracle() -> None:
    features = MATRIX.clone().requires_grad_(True)
    found = smallest_squares(features, 1)
    found.backward()
    assert float(found.detach()) == pytest.approx(0.133931252681, abs=1e-12)
    assert features.grad is not None
    assert features.grad.flatten().tolist() == pytest.approx([-0.547147426, 0.385585294, 0.242041545, -0.170571323], abs=1e-9)
    assert float(smallest_squares(MATRIX, 2)) == pytest.approx(30)


def test_maps_are_averaged_and_half_precision_is_widened() -> None:
    maps = MATRIX[:, :, None, None] + torch.tensor([[-1.0, 1.0], [0.5, -0.5]], dtype=torch.float64)
    assert float(smallest_squares(maps, 1)) == pytest.approx(0.133931252681)
    with torch.autocast("cpu", torch.bfloat16):
        found = smallest_squares(MATRIX.bfloat16(), 1)
    assert found.dtype == torch.float32 and float(found) == pytest.approx(0.133931, abs=1e-4)


def test_the_features_are_what_the_classifier_is_given() -> None:
    model, tuner, optimizer = toy_tuner([BSS(eta=0.5, k=2)])
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    x, y = toy_batch(0)
    loss = tuner.loss(model, x, y, nn.functional.cross_entropy)
    features = model.body(x)  # type: ignore[operator]
    wanted = 0.5 * torch.linalg.svdvals(features)[-2:].square().sum()
    assert tuner.penalties()["bss"] == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float((nn.functional.cross_entropy(model(x), y) + wanted).detach()), rel=1e-5)
    copy.deepcopy(model)(x)  # A trial network keeps its own features.
    loss.backward()
    assert model.body[0].weight.grad.abs().max() > 0  # type: ignore[union-attr, index]


def test_too_many_singular_values_are_refused_at_the_batch() -> None:
    with pytest.raises(ValueError, match="k must be at most 2, the smaller of the batch's 2 samples and 5 features, found 3"):
        smallest_squares(torch.ones(2, 5), 3)


def test_neutral_watches_nothing() -> None:
    model, tuner, _ = toy_tuner([BSS(eta=0.0)])
    method = tuner.methods[0]
    assert list(method.hook_layers) == []
    x, y = toy_batch(0)
    assert method.penalty(Batch(x, y, None, model(x), Clock(0, 1))) is None


def test_a_network_without_one_classifier_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="no single classifier"):
        BSS().attach(Net(model, ("",), {}), Source(model))


@pytest.mark.parametrize("k", [0, -1, 1.5, True, float("nan")])
def test_k_is_checked(k: object) -> None:
    with pytest.raises(ValueError, match=f"bss: k must .*whole number .*1 and at most .*, found {k!r}"):
        BSS(k=k)  # type: ignore[arg-type]


@pytest.mark.parametrize("eta", [-1.0, float("nan"), float("inf"), True])
def test_eta_is_checked(eta: object) -> None:
    with pytest.raises(ValueError, match=f"bss: eta must .*0, found {eta!r}"):
        BSS(eta=eta)  # type: ignore[arg-type]
