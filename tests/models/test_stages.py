"""Stages go from input to output and hold each parameter outside the head once."""

import pytest
import torch
from torch import nn

from rekindle import models


class Token(nn.Module):
    """Loose parameters, a patch embedding, blocks and a norm, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1))
        self.embed = nn.Linear(2, 2)
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 2)


def names(module: nn.Module, head: list[str]) -> list[str]:
    found = models.stages(module, head)
    inside = tuple(f"{name}." for name in head)
    flat = [name for members in found.values() for name in members]
    assert sorted(flat) == sorted(name for name, _ in module.named_parameters() if not name.startswith(inside))
    assert all(found.values())
    return list(found)


def test_a_transformers_stages() -> None:
    assert names(Token(), ["head"]) == ["stem", "blocks.0", "blocks.1", "blocks.2", "norm"]
    assert models.stages(Token(), ["head"])["stem"] == ["token", "embed.weight", "embed.bias"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar_resnet20", ["stem", "layer1", "layer2", "layer3"]),
        ("resnet18", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("resnet18d", ["stem", "layer1", "layer2", "layer3", "layer4"]),
        ("regnetx_002", ["stem", "s1", "s2", "s3", "s4"]),
        ("convnext_atto", ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"]),
        ("torchvision:squeezenet1_0", ["stem", *(f"features.{i}" for i in (3, 4, 5, 7, 8, 9, 10, 12))]),
        ("torchvision:vgg11", [*(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)), "classifier"]),
    ],
)
def test_the_stages_of_known_networks(name: str, expected: list[str]) -> None:
    with torch.device("meta"):
        module = models.build(name, weights="none").module
    found = names(module, models.find_classifier(module))
    assert [stage for stage in found if not stage.startswith("classifier")] == [stage for stage in expected if stage != "classifier"]


def test_a_plain_sequence_has_a_stage_a_layer() -> None:
    assert names(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2)), ["3"]) == ["0", "2"]


def test_a_wrapper_is_opened_whatever_its_name() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = models.build("cifar_resnet8", weights="none").module

    assert names(Wrapper(), ["net.linear"]) == ["stem", "net.layer1", "net.layer2", "net.layer3"]


def test_tied_parameters_count_once() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    assert models.stages(module, ["2"]) == {"0": ["0.weight", "0.bias"], "1": ["1.bias"]}
