"""Networks by name, and weights from files good and bad."""

import io
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rekindle import models
from rekindle.errors import UserError
from rekindle.models.cifar_resnet import CifarResNet

IMAGENET = (0.485, 0.456, 0.406)


def write(path: Path, module: nn.Module, **changes: torch.Tensor | None) -> Path:
    """The module's state in a file, with some tensors changed, or left out where None."""
    state = {key: value for key, value in (module.state_dict() | changes).items() if value is not None}
    save_file(state, path)
    return path


def refusal(name: str, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        models.build(name, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_importing_loads_no_catalogue() -> None:
    code = "import sys, rekindle.models; print(sorted({'timm', 'torchvision', 'huggingface_hub'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_cifar_resnets_have_the_papers_size(depth: int, parameters: int) -> None:
    module = models.build(f"cifar_resnet{depth}", weights="none").module
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules()) == depth


def test_cifar_resnet_downsamples_twice() -> None:
    module = CifarResNet(8)
    features = module.layer3(module.layer2(module.layer1(module.bn1(module.conv1(torch.randn(2, 3, 32, 32))))))
    assert features.shape == (2, 64, 8, 8)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnett50", "resnet50"), ("torchvision:rsnet50", "torchvision:resnet50"), ("cifar_resnet21", "cifar_resnet20"), ("tinny", "tiny")],
)
def test_an_unknown_name_is_answered_with_close_ones(name: str, near: str) -> None:
    assert near in refusal(name)


def test_classes_set_the_width_of_random_networks() -> None:
    for name in ("resnet18", "torchvision:resnet18", "cifar_resnet20", "tiny"):
        with torch.device("meta"):
            module = models.build(name, weights="none", classes=5).module
        assert module.get_submodule(models.find_classifier(module)[0]).out_features == 5


@pytest.mark.parametrize(
    ("name", "mean", "interpolation", "size"),
    [
        ("vit_tiny_patch16_224", (0.5, 0.5, 0.5), "bicubic", 224),
        ("resnet50.tv_in1k", IMAGENET, "bilinear", 224),
        ("torchvision:inception_v3", IMAGENET, "bilinear", 299),
        ("torchvision:swin_t", IMAGENET, "bicubic", 224),
    ],
)
def test_preprocessing_is_the_weights_own(name: str, mean: tuple[float, ...], interpolation: str, size: int) -> None:
    with torch.device("meta"):
        loaded = models.build(name, weights="none")
    assert (loaded.mean, loaded.interpolation, loaded.input_size) == (mean, interpolation, size)


def test_weights_of_a_file_arrive(tmp_path: Path) -> None:
    made = CifarResNet(8)
    loaded = models.build("cifar_resnet8", weights=write(tmp_path / "w.safetensors", made))
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in loaded.module.state_dict().items())
    assert "w.safetensors" in loaded.pretrained


@pytest.mark.parametrize("name", ["resnet10t", "torchvision:squeezenet1_1", "torchvision:googlenet", "cifar_resnet8"])
def test_a_files_classifier_may_have_any_width(name: str, tmp_path: Path) -> None:
    module = models.build(name, weights="none").module
    heads = models.replace_classifier(module, 4, head_type="own")
    loaded = models.build(name, weights=write(tmp_path / "w.safetensors", module)).module
    assert models.find_classifier(loaded) == heads
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(x), module.eval()(x))


def test_side_classifiers_in_torchvisions_file_are_passed_over(tmp_path: Path) -> None:
    import torchvision

    full = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=True)
    module = models.build("torchvision:googlenet", weights=write(tmp_path / "w.safetensors", full)).module
    assert torch.equal(module.fc.weight, full.fc.weight)  # type: ignore[union-attr]
    assert not any(key.startswith("aux") for key in module.state_dict())


def test_misfits_are_named(tmp_path: Path) -> None:
    made, path = CifarResNet(8), tmp_path / "w.safetensors"
    assert "it lacks conv1.weight" in refusal("cifar_resnet8", weights=write(path, made, **{"conv1.weight": None}))
    assert "it has extra.weight, unknown" in refusal("cifar_resnet8", weights=write(path, made, **{"extra.weight": torch.ones(1)}))
    text = refusal("cifar_resnet8", weights=write(path, made, **{"conv1.weight": torch.ones(16, 1, 3, 3)}))
    assert "conv1.weight is (16, 1, 3, 3), wanted (16, 3, 3, 3)" in text
    text = refusal("cifar_resnet8", weights=write(path, made, **{"bn1.bias": torch.ones(16, dtype=torch.int64)}))
    assert "bn1.bias is torch.int64, wanted torch.float32" in text
    text = refusal("cifar_resnet14", weights=write(path, made))
    assert "layer1.1.conv1.weight" in text and "more" in text


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", CifarResNet(8))
    whole = path.read_bytes()
    bodies = {"cut": whole[:-100], "header": struct.pack("<Q", 1 << 40) + whole[8:], "empty": b"", "text": b"<!doctype html>" * 9}
    for name, body in bodies.items():
        path.write_bytes(body)
        assert "is damaged, or" in refusal("cifar_resnet8", weights=path), name


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_nothing_is_unpickled(suffix: str, tmp_path: Path) -> None:
    body = io.BytesIO()
    torch.save({"conv1.weight": Trap(tmp_path / "marker")}, body)
    path = tmp_path / f"w{suffix}"
    path.write_bytes(body.getvalue())
    assert "could run code" in refusal("cifar_resnet8", weights=path)
    assert not (tmp_path / "marker").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none.safetensors") in refusal("resnet18", weights=tmp_path / "none.safetensors")


def test_tiny_without_its_weights_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["rekindle.models.build"], "TINY", tmp_path / "tiny.safetensors")
    assert "--weights none" in refusal("tiny")


def test_tiny_finds_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = CifarResNet(20)
    monkeypatch.setattr(sys.modules["rekindle.models.build"], "TINY", write(tmp_path / "tiny.safetensors", made))
    assert torch.equal(models.build("tiny").module.get_parameter("conv1.weight"), made.conv1.weight)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No host has an address, and nothing was downloaded before."""
    from huggingface_hub import constants

    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18"])
def test_a_hub_out_of_reach_is_one_sentence(name: str) -> None:
    from huggingface_hub import constants

    text = refusal(name)
    assert name in text and "--weights FILE.safetensors" in text and "--weights none" in text
    assert constants.HF_HUB_OFFLINE is False
    assert socket.getdefaulttimeout() is None


@pytest.mark.usefixtures("offline")
def test_a_network_without_published_weights_is_one_sentence() -> None:
    text = refusal("convnext_atto_rms")
    assert "No pretrained weights" in text and "--weights none" in text


@pytest.mark.parametrize(("name", "accuracy"), [("cifar_resnet20", 0.79), ("cifar_resnet56", 0.79)])
def test_real_weights_classify_real_photographs(name: str, accuracy: float, shared: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import numpy as np
    from PIL import Image

    path = shared / "weights" / f"{name}-cifar10.safetensors"
    assert load_file(path)["linear.weight"].shape == (10, 64)
    loaded = models.build(name, weights=path)
    table = parquet.read_table(shared / "data" / "cifar10" / "test.parquet").slice(0, 300)
    pictures = np.stack([np.asarray(Image.open(io.BytesIO(item.as_py()))) for item in table["image"]])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor(loaded.mean).view(3, 1, 1)) / torch.tensor(loaded.std).view(3, 1, 1)
    with torch.no_grad():
        found = loaded.module.eval()(x).argmax(1)
    assert (found == torch.tensor(table["label"].to_pylist())).float().mean() > accuracy
