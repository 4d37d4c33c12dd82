"""Sizes that do not fit in memory are refused or told before a picture is read, and the estimate is near what is really kept."""

import math
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from rekindle import models
from rekindle.cli import main
from rekindle.errors import UserError
from rekindle.fitting import memory
from rekindle.fitting.memory import activation_bytes, check_memory, device_memory, size_warnings
from rekindle.fitting.setup import launch
from rekindle.spec import RunSpec
from tests.toys import picture_folder

CPU = torch.device("cpu")


def network(name: str) -> torch.nn.Module:
    return models.build(name, weights="none").module


def kept_by_a_real_pass(model: torch.nn.Module, size: int, images: int) -> int:
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model.train()(torch.rand(images, 3, size, size))
    del outputs
    return sum(kept.values()) - sum(p.untyped_storage().nbytes() for p in model.parameters() if p.untyped_storage().data_ptr() in kept)


@pytest.mark.parametrize("name", ["cifar_resnet8", "tiny", "resnet18"])
def test_the_estimate_is_near_a_real_pass(name: str) -> None:
    found = activation_bytes(network(name), 64)
    assert found is not None
    assert found[0] == pytest.approx(kept_by_a_real_pass(network(name), 64, 4) / 4, rel=0.25) and 0 < found[1] < found[0]


def test_the_estimate_leaves_the_network_as_it_is() -> None:
    model = network("cifar_resnet8")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    activation_bytes(model, 32)
    assert all(tensor.device == CPU and tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_network_no_estimate() -> None:
    class Reads(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(x.sum())

    assert activation_bytes(Reads(), 32) is None and check_memory(RunSpec("x"), Reads(), 32, 10, CPU) == ""


@pytest.mark.parametrize("size", [8, 32, 256, 8192])
@pytest.mark.parametrize("batch", [2, 64, 65536])
def test_fits_is_warned_of_or_is_refused(size: int, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_memory", lambda device: (2.0**28, 2.0**32))
    model, spec = network("cifar_resnet8"), RunSpec("x", batch_size=batch, image_size=size, precision="32")
    one, largest = activation_bytes(model, size) or (0, 0)
    need = 4 * sum(4 * p.numel() for p in model.parameters()) + max(batch * one, 64 * 2 * largest)
    if need > 2**32:
        with pytest.raises(UserError, match=r"needs at least [\d.]+ GiB on cpu, .*; give a smaller --batch-size or --image-size"):
            check_memory(spec, model, size, 10**6, CPU)
    else:
        assert ("if memory runs out" in check_memory(spec, model, size, 10**6, CPU)) == (need > 2**28)


def test_the_machine_tells_its_memory() -> None:
    free, whole = device_memory(CPU)
    assert 0 < free <= whole and whole > 2**28


def test_a_container_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    plain = device_memory(CPU)
    for name, text in {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 1\ninactive_file 300\n"}.items():
        (tmp_path / name).write_text(text)
    assert device_memory(CPU) == (600, 1000)
    (tmp_path / "memory.max").write_text("max\n")
    assert device_memory(CPU)[1] == plain[1]
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "none")
    assert device_memory(CPU) == (math.inf, math.inf)


def test_a_batch_of_more_than_all_is_told() -> None:
    assert "24 training images" in size_warnings(RunSpec("x", batch_size=512), network("tiny"), 32, 24, CPU)[0]
    assert size_warnings(RunSpec("x"), network("tiny"), 32, 24, CPU) == []


def test_absurdly_many_processes_are_refused() -> None:
    with pytest.raises(UserError, match="--devices 1000 would start as many processes"):
        launch(RunSpec("x", devices=1000, batch_size=4000), "cpu")


def test_an_absurd_size_is_refused_before_a_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = picture_folder(tmp_path / "data", {"": 12})
    monkeypatch.setattr("rekindle.data.Pixels.load", lambda *given, **options: pytest.fail("a picture was read"))
    typed = ["fit", str(folder), "--model", "resnet18", "--weights", "none", "--image-size", "8000", "--batch-size", "4096", "--out"]
    assert main([*typed, str(tmp_path / "runs")]) == 2
    told = capsys.readouterr().err
    assert "GiB" in told and "--image-size" in told and not (tmp_path / "runs").exists()
