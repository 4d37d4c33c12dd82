"""Stochastic normalisation: the oracle of its paragraph and traps A and B, in float64."""

import copy
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rekindle import Net, Source
from rekindle.methods.noise.stoch_norm import StochNorm, mix, normalize
from tests.toys import toy, toy_tuner

X = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
EPS = 1e-30  # Next to a variance of 1 it is 0, which PyTorch does not take in training.


def norm(p: float, channels: int = 1) -> nn.BatchNorm1d:
    """Running mean 0 and variance 4, with the method on it."""
    model = nn.Sequential(nn.BatchNorm1d(channels, eps=EPS, dtype=torch.float64))
    model[0].running_var.fill_(4.0)  # type: ignore[union-attr, operator]
    StochNorm(p).surgery(Net(model, (), {}), Source(model))
    return model[0]  # type: ignore[return-value]


def test_oracle_both_branches_and_the_update() -> None:
    assert norm(1.0)(X).flatten().tolist() == [-1, 1]
    layer = norm(0.0)
    assert layer(X).flatten().tolist() == [0.5, 1.5]
    assert layer.running_mean.tolist() == pytest.approx([0.2], abs=1e-15) and layer.running_var.tolist() == pytest.approx([3.8], abs=1e-15)  # type: ignore[union-attr]
    assert int(layer.num_batches_tracked) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_trap_a_p_is_the_share_of_batch_statistics(p: float) -> None:
    layer = norm(p, 2000)
    torch.manual_seed(0)
    first = layer(X.expand(2, 2000))[0]
    assert set(first.tolist()) <= {-1, 0.5}
    assert (first == -1).double().mean().item() == pytest.approx(p, abs=0.03)


def test_trap_b_backward_uses_the_statistics_of_forward() -> None:
    layer, x = norm(0.0), X.clone().requires_grad_()
    (layer(x) * torch.tensor([[1.0], [0.0]], dtype=torch.float64)).sum().backward()
    assert x.grad.flatten().tolist() == pytest.approx([0.5, 0.0], abs=1e-15)  # type: ignore[union-attr]


def test_gradients_are_those_of_the_two_branches_by_channel() -> None:
    layer = norm(0.5, 20)
    torch.manual_seed(2)
    x = torch.randn(5, 20, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 20, 3, dtype=torch.float64)
    mean, var = layer.running_mean.clone(), layer.running_var.clone()  # type: ignore[union-attr, operator]
    batch, running = (
        F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, EPS),
        F.batch_norm(x, mean, var, layer.weight, layer.bias, eps=EPS),
    )
    torch.manual_seed(3)
    expected = mix(batch, running, 0.5)
    torch.manual_seed(3)
    found = layer(x)
    assert torch.equal(found, expected) and not torch.equal(found, batch) and not torch.equal(found, running)
    given, wanted = ((y * weights).sum() for y in (found, expected))
    for a, b in zip(*(torch.autograd.grad(y, [x, layer.weight, layer.bias]) for y in (given, wanted)), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_p_1_is_batchnorm_and_evaluation_is_untouched() -> None:
    plain = nn.BatchNorm1d(1, eps=EPS, dtype=torch.float64)
    plain.running_var.fill_(4.0)  # type: ignore[union-attr]
    same, other = norm(1.0), norm(0.0)
    for _ in range(3):
        assert torch.equal(same(X), plain(X))
        other(X)
    assert torch.equal(other.running_var, plain.running_var)  # type: ignore[arg-type]
    assert torch.equal(other.eval()(X), plain.eval()(X))


def test_a_frozen_norm_in_evaluation_mode_stays_deterministic() -> None:
    layer = norm(0.5)
    layer.eval()
    assert torch.equal(layer(X), layer(X)) and layer.running_mean.item() == 0  # type: ignore[union-attr, operator]


def test_a_deep_copy_keeps_its_own_statistics() -> None:
    layer = norm(0.0)
    other = copy.deepcopy(layer)
    other.running_var.fill_(1.0)  # type: ignore[union-attr]
    assert other(X).flatten().tolist() == [1, 3]
    assert layer(X).flatten().tolist() == [0.5, 1.5]


@pytest.mark.parametrize(("activation", "drop"), product([nn.ReLU(), nn.ReLU(inplace=True)], [nn.Identity(), nn.Dropout(0.5)]))
def test_norms_that_hold_an_activation(activation: nn.Module, drop: nn.Module) -> None:
    timm = pytest.importorskip("timm.layers")
    layer = timm.BatchNormAct2d(3).double()
    layer.act, layer.drop = activation, drop
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    expected = F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)
    torch.manual_seed(0)
    expected = drop(expected).relu()
    torch.manual_seed(0)
    assert torch.equal(normalize(layer, x, layer.running_mean, layer.running_var), expected)
    StochNorm(0.0).surgery(Net(nn.Sequential(layer), (), {}), Source(nn.Sequential(layer)))
    found = layer(x)
    found.sum().backward()
    assert found.min() == 0 and (isinstance(drop, nn.Dropout) or torch.equal(found, expected))


def test_keys_stay_under_a_tuner_and_another_hook_comes_later() -> None:
    model = toy(norm=True)
    keys = list(model.state_dict())
    model.body[1].register_forward_hook(lambda module, inputs, output: output * 0)
    toy_tuner([StochNorm()], model)
    assert list(model.state_dict()) == keys
    assert not model.body(torch.randn(6, 4)).any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), float("inf"), "0.5", False])
def test_arguments_are_checked(p: object) -> None:
    with pytest.raises(ValueError, match=f"stoch_norm: p must .*0 .*1, found {p!r}"):
        StochNorm(p=p)  # type: ignore[arg-type]


def test_networks_without_running_statistics_are_refused() -> None:
    for model in (toy(), nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))):
        with pytest.raises(ValueError, match="has no BatchNorm with running statistics"):
            StochNorm().surgery(Net(model, (), {}), Source(model))
        StochNorm(p=1.0).surgery(Net(model, (), {}), Source(model))
