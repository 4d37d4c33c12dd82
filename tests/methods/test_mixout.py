"""Mixout: the forward pass's mean and variance, its gradient, and what is mixed, in float64."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from rekindle import Net, Rifle, Source, Tuner
from rekindle.methods.anchors.mixout import Mixout, draw_mask, mix
from tests.toys import toy, toy_tuner

START = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
NOW = torch.tensor([[2.0, 2.0], [3.0, 7.0]], dtype=torch.float64)
DRAWS = 20000


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def mixed(method: Mixout) -> nn.Module:
    """A linear layer that has moved from START to NOW."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False, dtype=torch.float64))
    with torch.no_grad():
        model[0].weight.copy_(START)
        method.attach(Net(model, (), {"0.weight": "0.weight"}), Source(model))
        model[0].weight.copy_(NOW)
    return model


def weights_of(model: nn.Module, draws: int = DRAWS) -> Tensor:
    """(N, 2, 2) the weights that forward passes in training compute with."""
    return torch.stack([model(torch.eye(2, dtype=torch.float64)).detach().T for _ in range(draws)])


def test_the_mean_is_the_weight_and_the_noise_is_the_distances() -> None:
    found = weights_of(mixed(Mixout(p=0.7, per="weight")))
    assert torch.allclose(found.mean(0), NOW, rtol=0, atol=0.1)
    assert torch.allclose(found.var(0), (NOW - START).square() * 0.7 / 0.3, rtol=0.05, atol=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_are_the_papers_formula(p: float) -> None:
    for mask in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]):
        m = torch.tensor([mask], dtype=torch.float64)
        paper = ((1 - m) * START + m * NOW - p * START) / (1 - p)
        assert torch.allclose(mix(NOW, START, m.bool(), p), paper, rtol=0, atol=1e-14)


def test_its_expected_cost_on_a_quadratic_loss_is_a_pull() -> None:
    """Section 3: curvature * p / (1 - p) is the strength of L2-SP that it comes to."""
    curvature, p = 3.0, 0.4
    found = weights_of(mixed(Mixout(p=p, per="weight"))).square().sum((1, 2)).mean() * curvature / 2
    pull = curvature * p / (1 - p) / 2 * (NOW - START).square().sum()
    assert float(found) == pytest.approx(float(curvature / 2 * NOW.square().sum() + pull), rel=0.01)


def test_all_that_goes_out_from_a_neuron_is_swapped_together() -> None:
    found = weights_of(mixed(Mixout(p=0.5)), 200)
    values = [START + (NOW - START) * torch.tensor(kept, dtype=torch.float64) / 0.5 for kept in ([0, 0], [0, 1], [1, 0], [1, 1])]
    assert all(any(torch.equal(one, value) for value in values) for one in found)
    assert all(any(torch.equal(one, value) for one in found) for value in values)


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 6), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 8, 3, groups=2)], ids=repr
)
def test_masks_are_one_an_input_channel_of_each_group(layer: nn.Module) -> None:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups = getattr(layer, "groups", 1)
    drawn = [
        draw_mask(layer, weight, 0.5, "neuron").expand_as(weight).reshape(groups, len(weight) // groups, 4 // groups, -1) for _ in range(60)
    ]
    masks = torch.stack(drawn)
    assert bool((masks == masks[:, :, :1, :, :1]).all())
    channels = masks[:, :, 0, :, 0].flatten(1)
    assert channels.shape[1] == 4 and len(set(map(tuple, channels.tolist()))) == 16


def test_transposed_kernels_and_vectors() -> None:
    layer = nn.ConvTranspose2d(16, 3, 2)
    assert draw_mask(layer, layer.weight, 0.5, "neuron").shape == (16, 1, 1, 1)
    norm = nn.BatchNorm2d(16)
    assert draw_mask(norm, norm.weight, 0.5, "neuron").shape == (16,)


def test_gradients_reach_what_was_kept_alone() -> None:
    model = mixed(Mixout(p=0.6, per="weight"))
    torch.manual_seed(5)
    kept = draw_mask(model[0], model[0].weight, 0.6, "weight")  # type: ignore[index, arg-type]
    torch.manual_seed(5)
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    assert torch.allclose(model[0].weight.grad, kept.double() / 0.4, rtol=0, atol=1e-15)  # type: ignore[index]
    assert 0 < int(kept.sum()) < 4


def test_evaluation_uses_the_weights_and_an_error_leaves_them() -> None:
    model = mixed(Mixout())
    parameter, keys = model[0].weight, list(model.state_dict())  # type: ignore[index]
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 5, dtype=torch.float64))
    assert model[0].weight is parameter and list(model.state_dict()) == keys  # type: ignore[index]
    assert torch.equal(model.eval()(torch.eye(2, dtype=torch.float64)), NOW.T)


def test_tied_weights_are_mixed_once_and_frozen_ones_not() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    method = Mixout(p=0.5, per="weight")
    method.attach(Net(model, (), {"0.weight": "0.weight"}), Source(model))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0, -5.0], [3.0, 2.0]]))
    seen: list[Tensor] = []
    for layer in model:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(module.weight))
    model(torch.ones(1, 2))
    assert seen[0] is seen[1] and seen[0] is not model[0].weight
    model[0].weight.requires_grad_(False)
    model(torch.ones(1, 2))
    assert seen[2] is model[0].weight


def test_weights_that_modules_hand_to_functions_are_mixed_too() -> None:
    """Attention reads the weights of its output layer without calling it."""
    model = nn.Sequential(nn.MultiheadAttention(4, 2, batch_first=True))
    layer = model[0]
    names = {name: name for name, _ in model.named_parameters()}
    method = Mixout(p=0.5)
    method.attach(Net(model, (), names), Source(model))
    with torch.no_grad():
        layer.out_proj.weight.add_(1.0)  # type: ignore[union-attr]
    hidden = torch.randn(1, 3, 4)
    runs = []
    model.forward = lambda x: layer(x, x, x)[0]  # type: ignore[method-assign]
    for _ in range(2):
        runs.append(model(hidden))
    assert not torch.equal(*runs)


def test_a_deep_copy_mixes_its_own() -> None:
    model = mixed(Mixout(p=0.5))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.fill_(100.0)  # type: ignore[index, union-attr, operator]
    assert weights_of(other, 50).max() > 100 > weights_of(model, 50).max()


def test_the_head_is_mixed_with_where_training_began() -> None:
    method = Mixout(p=0.5, head="start", scope="all")
    model, tuner, optimizer = toy_tuner([method], toy())
    with torch.no_grad():
        model.fc.weight.fill_(7.0)  # type: ignore[union-attr, operator]  As a linear probe that is written after the tuner was made.
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    with torch.no_grad():
        model.fc.weight.fill_(9.0)  # type: ignore[union-attr, operator]
    seen: list[Tensor] = []
    model.fc.register_forward_hook(lambda module, inputs, output: seen.append(module.weight.detach()))  # type: ignore[union-attr]
    model.train()(torch.randn(2, 4))
    assert set(seen[0].flatten().tolist()) <= {7.0, 11.0}
    assert set(method.state_dict()["anchors"]) == {name for name, _ in model.named_parameters()}


def test_a_head_that_is_drawn_anew_has_no_start() -> None:
    with pytest.raises(ValueError, match=r"mixout and rifle do not go together: rifle draws the head anew"):
        toy_tuner([Mixout(head="start"), Rifle()])
    toy_tuner([Mixout(), Rifle()])


def test_a_network_from_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mixout: the network shares no weights with its source"):
        Tuner(toy(), [Mixout()], head="fc", source_names={}, epochs=1, steps_per_epoch=1)


def test_no_probability_hangs_nothing() -> None:
    model, _, _ = toy_tuner([Mixout(p=0.0)])
    assert not model._forward_hooks and not model._forward_pre_hooks
