"""Dropout of features and of the classifier's weights (label C3; C5 for all in test_noise_networks)."""

import copy

import pytest
import torch
from torch import nn

from rekindle import Method, Net, Source
from rekindle.methods.noise.dropconnect import DropConnect, apply_weights
from rekindle.methods.noise.dropout import Dropout, classifiers
from tests.toys import toy, toy_tuner

W, ONES = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)


def example() -> nn.Linear:
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(W)
    return layer


def noisy(method: Method, head: nn.Module | None = None) -> nn.Module:
    """A network that is its head alone, with the method on it."""
    model = nn.Sequential(head or example())
    method.attach(Net(model, ("0",), {}), Source(model))
    return model


def test_c3_a_weight_mask_and_an_input_mask() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64) * W / 0.5
    assert apply_weights(example(), ONES, weights).tolist() == [[2, 8]]
    assert example()(torch.tensor([[1.0, 2.0]], dtype=torch.float64) * torch.tensor([1.0, 0.0]) / 0.5).tolist() == [[2, 6]]


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_c3_expectation_and_variance_of_dropconnect(per: str) -> None:
    model = noisy(DropConnect(p=0.5, per=per))  # type: ignore[arg-type]
    torch.manual_seed(0)
    outputs = torch.cat([model(ONES) for _ in range(4000)]) if per == "batch" else model(ONES.expand(20000, 2))
    assert outputs.mean(0).tolist() == pytest.approx([3, 7], rel=0.02)
    assert outputs.var(0).tolist() == pytest.approx([5, 25], rel=0.05)
    assert sorted(set(outputs[:, 0].tolist())) == [0, 2, 4, 6]


def test_c3_dropout_of_the_input_takes_whole_columns() -> None:
    model = noisy(Dropout(p=0.5))
    torch.manual_seed(0)
    outputs = model(torch.tensor([[1.0, 2.0]], dtype=torch.float64).expand(4000, 2)).detach()
    assert {tuple(row) for row in outputs.tolist()} == {(0, 0), (2, 6), (8, 16), (10, 22)}
    assert outputs.mean(0).tolist() == pytest.approx([5, 11], rel=0.03)


def test_per_batch_shares_a_mask_and_per_sample_does_not() -> None:
    torch.manual_seed(0)
    for per, same in (("batch", True), ("sample", False)):
        rows = noisy(DropConnect(p=0.5, per=per))(ONES.expand(50, 2))  # type: ignore[arg-type]
        assert bool((rows == rows[0]).all()) is same


LAYERS = [
    nn.Linear(3, 4),
    nn.Linear(3, 4, bias=False),
    nn.Conv1d(3, 4, 2, stride=2, padding=1),
    nn.Conv2d(3, 4, 3, padding=1, dilation=2, bias=False),
    nn.Conv2d(3, 4, 1),
    nn.Conv3d(3, 4, 2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_weights_a_sample_are_each_sample_alone(layer: nn.Module) -> None:
    layer = copy.deepcopy(layer).double()
    torch.manual_seed(0)
    x = torch.randn(5, 3, *(6 for _ in getattr(layer, "kernel_size", ())), dtype=torch.float64)
    weights = torch.randn(5, *layer.weight.shape, dtype=torch.float64)  # type: ignore[union-attr, misc]
    each = torch.cat([apply_weights(layer, x[i : i + 1], weights[i]) for i in range(5)])
    assert torch.allclose(apply_weights(layer, x, weights), each, rtol=0, atol=1e-12)
    assert torch.allclose(apply_weights(layer, x, layer.weight), layer(x), rtol=0, atol=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_the_bias_stays_and_gradients_follow_the_mask(per: str) -> None:
    head = nn.Linear(3, 4, dtype=torch.float64)
    model = noisy(DropConnect(p=0.9, per=per), head)  # type: ignore[arg-type]
    torch.manual_seed(1)
    out = model(torch.zeros(6, 3, dtype=torch.float64))
    assert torch.equal(out, head.bias.expand(6, 4))
    model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    assert set(head.weight.grad.flatten().round(decimals=9).tolist()) == {0, 10}  # type: ignore[union-attr]
    assert torch.equal(head.bias.grad, torch.ones(4, dtype=torch.float64))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [Dropout(), DropConnect(), DropConnect(per="sample")])
def test_evaluation_is_the_untouched_layer_and_training_follows_the_default_generator(method: Method) -> None:
    model = noisy(method)
    x = torch.randn(7, 2, dtype=torch.float64)
    torch.manual_seed(3)
    first, second = model(x), model(x)
    torch.manual_seed(3)
    assert torch.equal(model(x), first) and not torch.equal(first, second)
    assert torch.equal(model.eval()(x), example()(x))


def test_a_deep_copy_masks_its_own_weights() -> None:
    model = noisy(DropConnect(p=0.5))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.fill_(100.0)  # type: ignore[index, union-attr, operator]
    torch.manual_seed(0)
    assert set(other(ONES).flatten().tolist()) <= {0, 200, 400}
    assert model(ONES).max() < 100


def test_dropout_finds_the_features_of_any_head() -> None:
    deep = nn.ModuleDict(
        {"a": nn.Linear(2, 2), "head": nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), "twin": nn.Linear(2, 2)}
    )
    assert classifiers(Net(deep, ("head.2",), {}, classifier="head"), "x") == [deep["head"]]
    assert classifiers(Net(deep, ("head.0", "head.2"), {}), "x") == [deep["head"][0]]  # type: ignore[index]
    assert classifiers(Net(deep, ("a", "twin"), {}), "x") == [deep["a"], deep["twin"]]
    with pytest.raises(ValueError, match="dropout: the network has no head"):
        Dropout().attach(Net(deep, (), {}), Source(deep))


def test_in_a_tuner_taps_see_what_the_head_computes_with() -> None:
    model, _, _ = toy_tuner([Dropout(p=0.9), DropConnect(p=0.5)], toy())
    torch.manual_seed(0)
    kept = []
    model.fc.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))  # type: ignore[union-attr]
    model(torch.randn(40, 4))
    assert 0.8 < (kept[0] == 0).double().mean() < 0.97


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan"), float("inf"), "0.5", True, None])
def test_arguments_are_checked(p: object) -> None:
    for kind, name in ((Dropout, "dropout"), (DropConnect, "dropconnect")):
        with pytest.raises(ValueError, match=f"{name}: p must .*0 .*below 1, found {p!r}"):
            kind(p=p)
    with pytest.raises(ValueError, match='per must .*"batch" or "sample", found \'row\''):
        DropConnect(per="row")  # type: ignore[arg-type]


@pytest.mark.parametrize("head", [nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm1d(4)])
def test_heads_without_plain_weights_are_refused(head: nn.Module) -> None:
    with pytest.raises(ValueError, match="wanted is a linear layer, or a convolution without groups|no weights between units to drop"):
        noisy(DropConnect(), head)
    assert noisy(DropConnect(p=0), head)
