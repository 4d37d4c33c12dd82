"""A saved network comes back equal; damaged or foreign files are refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rekindle import models
from rekindle.errors import UserError


def recipe(name: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "model": name, "head": "", "head_type": "auto", "classes": ["a", "b", "c"], "image_size": 64,
        "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear",
    }  # fmt: skip
    return plain | changes


def saved(folder: Path, name: str = "cifar_resnet8", **changes: Any) -> nn.Module:
    made = recipe(name, **changes)
    module = models.build(name, weights="none").module
    models.replace_classifier(module, 3, head=made["head"] or None, head_type=made["head_type"])
    models.save_model(folder, module, made)
    return module.eval()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cifar_resnet8", {}),
        ("tiny", {}),
        ("resnet10t", {}),
        ("torchvision:squeezenet1_1", {"head_type": "linear"}),
        ("torchvision:googlenet", {}),
        ("convnext_atto", {"head": "head"}),
    ],
)
def test_a_saved_network_comes_back_equal(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    module = saved(tmp_path, name, **changes)
    state = torch.random.get_rng_state()
    loaded, found = models.load_model(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found == {"temperature": 1.0, **recipe(name, **changes)}
    assert not loaded.training
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))


def test_tied_and_strided_tensors_are_written(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Linear(4, 4), nn.Linear(4, 4))
    module[2].weight = module[1].weight
    models.save_model(tmp_path / "new", module, recipe("own"))
    found = load_file(tmp_path / "new" / "model.safetensors")
    assert all(torch.equal(found[key], value) for key, value in module.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model.json", "model.safetensors"]


def test_a_failed_save_leaves_the_old_files(tmp_path: Path) -> None:
    saved(tmp_path)
    before = (tmp_path / "model.json").read_bytes()
    with pytest.raises(TypeError):
        models.save_model(tmp_path, nn.Linear(2, 2), recipe("own", classes={1}))
    assert (tmp_path / "model.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def refused(folder: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        models.load_model(folder)
    assert "\n" not in str(caught.value)


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no model.json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "damaged"),
        ("[]", "holds no keys"),
        ("{}", "model: field required"),
        (json.dumps({"format": 99}), "is of format 99, from a later rekindle; this one reads 1 to 2"),
        (json.dumps({"format": 1, **recipe("cifar_resnet8"), "mean": None}), "mean: input should be"),
        (json.dumps({"format": 1, **recipe("cifar_resnet9")}), "cifar_resnet20"),
        (json.dumps({"format": 1, **recipe("cifar_resnet8", classes=["a", "b"])}), "linear.weight is .3, 64., wanted .2, 64."),
        (json.dumps({"format": 1, **recipe("cifar_resnet14")}), "layer1.1.conv1.weight"),
    ],
)
def test_a_damaged_or_foreign_recipe_is_refused(body: str, words: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.json").write_text(body)
    refused(tmp_path, words)


def test_damaged_or_missing_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    refused(tmp_path, "model.safetensors is damaged")
    path.unlink()
    refused(tmp_path, "there is no weights file .*model.safetensors")
