"""Vision transformers take pictures of another size than their weights: embeddings of places are interpolated, others stay."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

import rekindle
from rekindle import UserError, models
from rekindle.analysis.features import FeatureReader
from rekindle.exporting.timm_folder import write_timm_folder
from rekindle.models.input_size import set_input_size_
from rekindle.models.saving import load_model
from rekindle.training.defaults import suitable_optimizer
from rekindle.training.listener import Silent
from tests.toys import picture_folder

# (network, another size, tokens before the places)
SIZED = [
    ("vit_tiny_patch16_224", 64, 1), ("deit_tiny_distilled_patch16_224", 96, 2), ("vit_tiny_r_s16_p8_224", 64, 1),
    ("vit_xsmall_patch16_clip_224", 64, 1), ("swin_tiny_patch4_window7_224", 64, 0), ("convnext_atto", 48, 0), ("resnet18", 48, 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "before"), SIZED)
def test_a_network_takes_pictures_of_another_size(name: str, size: int, before: int) -> None:
    torch.manual_seed(0)
    plain = models.build(name, weights="none").module
    torch.manual_seed(0)
    resized = models.build(name, weights="none", image_size=size)
    assert resized.module.eval()(torch.rand(2, 3, size, size)).shape == plain.eval()(torch.rand(2, 3, 224, 224)).shape
    embedding, own = (getattr(module, "pos_embed", None) for module in (resized.module, plain))
    if isinstance(own, nn.Parameter):
        places = resized.module.patch_embed.grid_size
        assert torch.equal(embedding, resample_abs_pos_embed(own, places, num_prefix_tokens=before))
        assert torch.equal(embedding[:, :before], own[:, :before]) and embedding.shape[1] == before + places[0] * places[1]


def test_registers_stay_and_mean_pooling_reads_all_places() -> None:
    options: dict[str, Any] = {"img_size": 64, "embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 16}
    for name, options_ in (("vit_small_patch14_reg4_dinov2", options), ("vit_medium_patch16_gap_256", options)):
        model = timm.create_model(name, num_classes=5, **options_)
        before = {key: value.clone() for key, value in model.named_parameters() if key in ("reg_token", "cls_token")}
        set_input_size_(model, name, 96)
        with FeatureReader(model.eval()) as reader:
            features, outputs = reader.read(torch.rand(2, 3, 96, 96))
        assert outputs.shape == (2, 5) and features.shape[1] == model.get_classifier().in_features
        assert torch.allclose(model.get_classifier()(features), outputs, atol=1e-6)
        assert all(torch.equal(value, model.get_parameter(key)) for key, value in before.items())


def test_torchvisions_vit_is_interpolated_too() -> None:
    module = models.build("torchvision:vit_b_32", weights="none").module
    own = module.encoder.pos_embedding.detach().clone()
    with torch.no_grad():  # What is the same everywhere is the same at any size.
        module.encoder.pos_embedding[:, 1:] = own[:, 1:2]
    set_input_size_(module, "torchvision:vit_b_32", 96)
    assert module.eval()(torch.rand(1, 3, 96, 96)).shape == (1, 1000)
    now = module.encoder.pos_embedding
    assert (
        now.shape[1] == 1 + 9 and torch.equal(now[:, 0], own[:, 0]) and torch.allclose(now[:, 1:], own[:, 1:2].expand(1, 9, -1), atol=1e-6)
    )


def test_a_size_that_no_patch_fits_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"vit_tiny_patch16_224 takes no pictures of 100 x 100 pixels .*such as 96\.$"):
        models.build("vit_tiny_patch16_224", weights="none", image_size=100)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("vit_tiny_patch16_224", "AdamW"), ("swin_tiny_patch4_window7_224", "AdamW"), ("convnext_atto", "AdamW"), ("resnet18", "SGD"), ("tf_efficientnet_lite0", "SGD")],
)  # fmt: skip
def test_the_optimiser_suits_the_network(name: str, optimizer: str) -> None:
    assert suitable_optimizer(models.build(name, weights="none").module) == optimizer


def test_a_run_at_another_size_trains_predicts_and_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture_folder(tmp_path / "data", {"train": 6, "val": 4, "test": 4})
    # Weights of a file stand for pre-trained ones: a look, a linear probe and AdamW, as with a download.
    torch.manual_seed(0)
    torch.save(models.build("vit_tiny_patch16_224", weights="none").module.state_dict(), tmp_path / "vit.pth")
    said: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda self, text: said.append(text))
    run = rekindle.fit(
        data, model="vit_tiny_patch16_224", weights=str(tmp_path / "vit.pth"), image_size=32, epochs=1, batch_size=4, precision="32",
        method="l2+layer_decay(factor=0.75)", keep="last", optimizer="auto", out=tmp_path / "runs", device="cpu", workers=0, listener=Silent(),
    )  # fmt: skip
    assert any("AdamW, learning rate 0.0001, of the head 0.001, which starts from the linear probe" in text for text in said)
    module, recipe = load_model(run.folder)
    assert module.pos_embed.shape[1] == 1 + 4 and recipe["image_size"] == 32
    for size in (0, 32):  # Its own, and as given.
        onward = models.build("vit_tiny_patch16_224", weights=str(run.folder), image_size=size)
        assert onward.input_size == 32 and torch.equal(onward.module.pos_embed, module.pos_embed)
    assert models.build("vit_tiny_patch16_224", weights=str(run.folder), image_size=48).module.pos_embed.shape[1] == 1 + 9
    pictures = sorted((data / "test").rglob("*.png"))
    again = rekindle.Run(run.folder).predict(pictures)
    assert len(again) == len(pictures)
    write_timm_folder(run, tmp_path / "timm")
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(model(x), module(x), atol=1e-6)
