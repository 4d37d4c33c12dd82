"""The head is found, and what replaces it is fresh, of the same kind, and alone in being changed."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from rekindle import models
from rekindle.errors import UserError


def plain() -> nn.Sequential:
    """Somebody's own network: a convolution, then two linear layers."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 10))


class Own(nn.Module):
    """Somebody's own network, its classifier under a usual name but defined before the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.1), nn.Linear(4, 10, bias=False))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.aux1 = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.aux1(self.body(x)))


class Convolutional(nn.Module):
    """Somebody's own network that pools the maps of its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.classifier = nn.Conv2d(8, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(x)).mean((2, 3))


@pytest.mark.parametrize(("make", "expected"), [(plain, ["6"]), (Own, ["head.2"]), (Convolutional, ["classifier"])])
def test_the_classifier_of_somebodys_own_network(make: Callable[[], nn.Module], expected: list[str]) -> None:
    module = make()
    assert models.find_classifier(module) == expected
    assert models.replace_classifier(module, 3) == expected
    assert module(torch.randn(2, 3, 8, 8)).shape == (2, 3)


def test_only_the_classifier_changes() -> None:
    module = Own().double().eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    models.replace_classifier(module, 3)
    after = module.state_dict()
    assert list(after) == list(before)
    assert [key for key in after if not torch.equal(after[key], before[key])] == ["head.2.weight"]
    layer = module.head[2]
    assert (layer.weight.shape, layer.bias, layer.weight.dtype, layer.training) == ((3, 4), None, torch.float64, False)


def test_the_draw_is_the_frameworks_default_from_the_global_generator() -> None:
    module = nn.Sequential(nn.Linear(2048, 10))
    torch.manual_seed(1)
    models.replace_classifier(module, 200)
    torch.manual_seed(1)
    expected = nn.Linear(2048, 200)
    assert torch.equal(module[0].weight, expected.weight)
    assert torch.equal(module[0].bias, expected.bias)


def test_a_named_part_is_drawn_anew_as_a_whole() -> None:
    module = models.build("torchvision:alexnet", weights="none").module
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert models.find_classifier(module) == ["classifier.6"]
    heads = models.replace_classifier(module, 3, head="classifier")
    assert heads == ["classifier.1", "classifier.4", "classifier.6"]
    after = module.state_dict()
    assert {key.rpartition(".")[0] for key in after if not torch.equal(after[key], before[key])} == set(heads)
    assert module.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_drawing_a_head_anew_spares_tensors_that_it_shares() -> None:
    module = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 10))})
    module["head"][0].weight = module["body"].weight  # type: ignore[index]
    before = module["body"].weight.clone()
    models.replace_classifier(module, 3, head="head")
    assert torch.equal(module["body"].weight, before)
    assert not torch.equal(module["head"][0].weight, before)  # type: ignore[index]


@pytest.mark.parametrize("kind", [weight_norm, nn.utils.parametrizations.orthogonal])
def test_a_parametrised_classifier_becomes_a_plain_one(kind: Callable[[nn.Module], nn.Module]) -> None:
    module = nn.Sequential(nn.Linear(4, 8), kind(nn.Linear(8, 10)))
    models.replace_classifier(module, 3)
    assert type(module[1]) is nn.Linear
    assert list(module[1].state_dict()) == ["weight", "bias"]


def test_a_convolution_keeps_its_geometry() -> None:
    module = nn.Sequential(nn.Conv2d(8, 10, 3, stride=2, padding=1, dilation=2, bias=False))
    x = torch.randn(1, 8, 9, 9)
    before = module(x).shape
    models.replace_classifier(module, 3)
    assert module(x).shape == (1, 3, *before[2:])
    assert module[0].bias is None


def test_linear_head_replaces_squeezenets_dropout_and_relu() -> None:
    module = models.build("torchvision:squeezenet1_0", weights="none").module
    assert models.replace_classifier(module, 3, head_type="linear") == ["classifier.2"]
    assert [type(part) for part in module.classifier] == [nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear]
    assert (module.train()(torch.randn(8, 3, 64, 64)) < 0).any()


def test_linear_head_in_the_midst_of_a_network_equals_pooling_first() -> None:
    module = Convolutional()
    assert models.replace_classifier(module, 3, head_type="linear") == ["classifier.2"]
    assert models.find_classifier(module) == ["classifier.2"]
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(module(x), module.classifier[2](module.body(x).mean((2, 3))))


def test_linear_head_leaves_linear_classifiers_alone_even_two() -> None:
    with torch.device("meta"):
        module = models.build("deit_tiny_distilled_patch16_224", weights="none").module
    assert models.replace_classifier(module, 3, head_type="linear") == ["head", "head_dist"]
    assert (module.head.out_features, module.head_dist.out_features) == (3, 3)


def test_auxiliary_classifiers_are_gone_in_training() -> None:
    module = models.build("torchvision:googlenet", weights="none").module
    models.replace_classifier(module, 7)
    assert module.train()(torch.randn(2, 3, 64, 64)).shape == (2, 7)


def test_a_network_without_a_classifier_gets_one() -> None:
    import timm

    module = timm.create_model("resnet10t", num_classes=0)
    with pytest.raises(UserError, match="no classifier yet"):
        models.find_classifier(module)
    assert models.replace_classifier(module, 3) == ["fc"]
    assert module.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"classes": 1}, "at least 2 classes, found 1"),
        ({"head": "had"}, "no part 'had' .* candidates are head.2, "),
        ({"head": "body.1"}, "does not end in a linear or convolutional layer; candidates are head.2"),
        ({"head_type": "mlp"}, "auto, own or linear"),
    ],
)
def test_refusals_say_what_to_type(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        models.replace_classifier(Own(), **({"classes": 3} | options))  # type: ignore[arg-type]


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(UserError, match="no linear or convolutional layer"):
        models.find_classifier(nn.Sequential(nn.Flatten(), nn.ReLU()))


def test_a_grouped_convolution_is_refused_unless_made_linear() -> None:
    module = nn.Sequential(nn.Conv2d(10, 10, 1, groups=10))
    with pytest.raises(UserError, match="grouped"):
        models.replace_classifier(module, 3)
    assert models.replace_classifier(module, 3, head_type="linear") == ["0.2"]
    assert module(torch.zeros(1, 10, 4, 4)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("head_type", ["own", "linear"])
@pytest.mark.parametrize("name", ["cifar_resnet8", "torchvision:squeezenet1_0"])
def test_a_head_is_drawn_by_the_processor_wherever_the_network_lies(name: str, head_type: str) -> None:
    """By the generator that every machine has, so that a seed means the same head on a GPU."""
    states = []
    for device in ("cpu", "meta"):
        module = models.build(name, weights="none").module.to(device)
        torch.manual_seed(4)
        [head] = models.replace_classifier(module, 7, head_type=head_type)
        assert {p.device.type for p in module.get_submodule(head).parameters()} == {device}
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
