"""Files of weights as people have them: below prefixes, without a classifier, pickled, in half precision, in a run folder."""

import argparse
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rekindle import models
from rekindle.errors import UserError
from rekindle.models.cifar_resnet import CifarResNet

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    """Weights of a small network, unlike those that `build` draws."""
    torch.manual_seed(7)
    return CifarResNet(8, 4).state_dict()


def loaded(path: Path) -> models.LoadedModel:
    """The network with the file's weights."""
    return models.build("cifar_resnet8", weights=path)


def same(path: Path, state: State, leave: str = "linear.") -> bool:
    """Whether the network holds the state's values, but for names that begin with `leave`."""
    found = loaded(path).module.state_dict()
    return all(torch.allclose(found[key], value, atol=1e-2) for key, value in state.items() if not leave or not key.startswith(leave))


def below(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "ema.", "ema_model.module.", "backbone.", "net."]
)
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    "beside", [{}, {"n_averaged": torch.tensor(3)}, {"criterion.weight": torch.ones(4)}, {"head.mlp.0.weight": torch.ones(3)}]
)
def test_a_prefix_is_stripped(prefix: str, bare: bool, beside: State, state: State, tmp_path: Path) -> None:
    kept = {key: value for key, value in state.items() if not bare or not key.startswith("linear.")}
    save_file({**below(prefix, kept), **beside}, tmp_path / "w.safetensors")
    assert same(tmp_path / "w.safetensors", state, "linear." if bare else "")
    told = loaded(tmp_path / "w.safetensors").note
    assert ("without a classifier" in told) == bare
    assert (f"below {prefix.rstrip('.')}" in told) == bool(prefix)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", [".safetensors", ".SAFETENSORS", ".SafeTensors", ""])
def test_any_precision_and_ending(kind: torch.dtype, ending: str, state: State, tmp_path: Path) -> None:
    save_file({key: value.to(kind) if value.is_floating_point() else value for key, value in state.items()}, tmp_path / f"w{ending}")
    assert same(tmp_path / f"w{ending}", state)
    assert all(p.dtype == torch.float32 for p in loaded(tmp_path / f"w{ending}").module.parameters())


NESTED: dict[str, Callable[[State], Any]] = {
    "flat": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "best": np.float64(0.5)},
    "args": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x"))},
    "teacher": lambda s: {"student": below("module.backbone.", others(s)), "teacher": below("module.backbone.", s)},
    "ema": lambda s: {"state_dict": others(s), "state_dict_ema": s},
    "lightning": lambda s: {"state_dict": below("model.", s), "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}]},
    "deep": lambda s: {"a": {"b": {"c": s}}},
}


def others(state: State) -> State:
    return {key: value + 1 for key, value in state.items()}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("ending", [".pth", ".PT", ".ckpt", ".bin", ".pth.tar"])
def test_files_of_torch_save(name: str, ending: str, state: State, tmp_path: Path) -> None:
    torch.save(NESTED[name](state), tmp_path / f"w{ending}")
    assert same(tmp_path / f"w{ending}", state)


def test_files_of_old_torch(state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(tmp_path / "w.pth", state)


@pytest.mark.parametrize("content", [3, {}, {"epoch": 1}, [torch.ones(2)]])
def test_files_without_weights_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match="holds no weights by name"):
        loaded(tmp_path / "w.pth")


def test_a_deeper_network_does_not_fit_a_shallower(tmp_path: Path) -> None:
    save_file(below("module.", CifarResNet(14, 4).state_dict()), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="unknown to the network"):
        loaded(tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_stands_for_its_weights(name: str, state: State, tmp_path: Path) -> None:
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    assert same(tmp_path, state)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no model.safetensors"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    "model",
    ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "torchvision:squeezenet1_0", "torchvision:mobilenet_v3_small"],
)
def test_backbones_of_libraries(model: str, tmp_path: Path) -> None:
    module = models.build(model, weights="none").module
    layers = tuple(f"{name}." for name in models.find_classifier(module))
    save_file({key: value for key, value in module.state_dict().items() if not key.startswith(layers)}, tmp_path / "w.safetensors")
    made = models.build(model, weights=tmp_path / "w.safetensors").module
    assert models.width_of_classifier(made) == 0
    assert models.source_classifier(made, models.find_classifier(made)) == ""  # What is drawn anew tells nothing of the source's classes.
    assert models.replace_classifier(made, 3)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("forbidden", ["", "1"])
@pytest.mark.parametrize("model", ["resnet18", "googlenet", "densenet121"])
def test_a_planted_file_in_the_cache_is_not_run(
    zipped: bool, forbidden: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forbidden)
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    planted = place / torchvision.models.get_model_weights(model).DEFAULT.url.rpartition("/")[2]
    torch.save({"x": Trap(tmp_path / "marker")}, planted, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="holds more than weights"):
        models.build(f"torchvision:{model}")
    assert not (tmp_path / "marker").exists()
