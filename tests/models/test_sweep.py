"""Every classification network of timm and torchvision: classifier found, replaced, output width right, or a clear refusal."""

import gc
import warnings

import pytest
import torch
from torch import nn

from rekindle import models
from rekindle.errors import UserError
from rekindle.models.classifier import CONVOLUTIONS

CLASSES = 7
REPRESENTATIVE = [
    "resnet18", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050", "efficientnet_b0", "densenet121", "vgg11", "regnetx_002",
    "deit_tiny_distilled_patch16_224", "levit_384_s8", "efficientvim_m1_dist", "resnetv2_50x1_bit", "inception_v3", "swin_tiny_patch4_window7_224",
    "torchvision:squeezenet1_0", "torchvision:googlenet", "torchvision:inception_v3", "torchvision:vit_b_16", "torchvision:mobilenet_v2",
    "torchvision:swin_t", "torchvision:vgg11", "torchvision:regnet_y_400mf", "cifar_resnet20",
]  # fmt: skip
NEEDS_VALUES = ("meta", "item", "data-dependent")


def all_names() -> list[str]:
    import timm
    import torchvision

    return timm.list_models() + [f"torchvision:{name}" for name in torchvision.models.list_models(module=torchvision.models)]


def attempt(name: str) -> str | None:
    """None if the network works, or the sentence that refuses it."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            loaded = on_meta(name)
            heads = models.replace_classifier(loaded.module, CLASSES)
        except UserError as refusal:
            return str(refusal)
        check_names(loaded.module, heads)
        check_output(loaded)
        if isinstance(loaded.module.get_submodule(heads[-1]), CONVOLUTIONS):
            heads = models.replace_classifier(loaded.module, CLASSES + 1, head_type="linear")
            assert isinstance(loaded.module.get_submodule(heads[-1]), nn.Linear)
            check_names(loaded.module, heads, CLASSES + 1)
            check_output(loaded, CLASSES + 1)
    return None


def on_meta(name: str) -> models.LoadedModel:
    """Shapes without memory; a few networks compute with values while they are built and need the CPU."""
    try:
        with torch.device("meta"):
            return models.build(name, weights="none")
    except (UserError, RuntimeError, NotImplementedError):
        return models.build(name, weights="none")


def check_names(module: nn.Module, heads: list[str], classes: int = CLASSES) -> None:
    """The head's layers are fresh and can be drawn again; the stages cover each other parameter once."""
    assert models.find_classifier(module) == heads
    for head in heads:
        layer = module.get_submodule(head)
        assert (getattr(layer, "out_features", None) or layer.out_channels) == classes  # type: ignore[union-attr]
        assert callable(layer.reset_parameters)
        assert layer.weight.requires_grad
    covered = sorted(name for names in models.stages(module, heads).values() for name in names)
    inside = tuple(f"{head}." for head in heads)
    assert covered == sorted(name for name, _ in module.named_parameters() if not name.startswith(inside))


def check_output(loaded: models.LoadedModel, classes: int = CLASSES) -> None:
    """(B, classes) logits, in training and in evaluation."""
    module = loaded.module
    size = getattr(module, "pretrained_cfg", {}).get("input_size", (3, loaded.input_size, loaded.input_size))
    device = next(module.parameters()).device
    for training in (True, False):
        try:
            output = module.train(training)(torch.zeros(2, *size, device=device))
        except (RuntimeError, NotImplementedError, TypeError) as error:
            if device.type != "meta" or not any(word in str(error).lower() for word in NEEDS_VALUES):
                raise
            continue  # This forward needs values; the layer's own width was checked.
        assert isinstance(output, torch.Tensor), type(output)
        assert output.shape == (2, classes), output.shape


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_representative_networks(name: str) -> None:
    assert attempt(name) is None


def test_an_encoder_without_class_scores_is_refused() -> None:
    assert "MobileNetV5Encoder is an encoder" in (attempt("mobilenetv5_300m_enc") or "")


@pytest.mark.slow
def test_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    names = all_names()
    refused, broken = {}, {}
    for count, name in enumerate(names):
        try:
            sentence = attempt(name)
        except Exception as error:  # noqa: BLE001 (whatever a network raises is what is looked for)
            broken[name] = f"{type(error).__name__}: {error}"
            continue
        if sentence is not None:
            refused[name] = sentence
        if count % 50 == 0:
            gc.collect()
    with capsys.disabled():
        print(f"\n{len(names)} networks, {len(refused)} refused, {len(broken)} broken")
        for name, why in {**refused, **broken}.items():
            print(f"  {name}: {why.splitlines()[0][:300]}")
    assert not broken
    assert len(refused) <= 0.02 * len(names)
