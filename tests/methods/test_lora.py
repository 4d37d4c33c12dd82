"""LoRA and DoRA: what trains, the formula, names in checkpoints, and one layer in the end."""

import copy
import sys

import pytest
import torch
from torch import nn

from rekindle import L2SP, Source, UserError
from rekindle.methods import Freeze, LoRA
from rekindle.models.merging import merge_
from rekindle.registry import methods
from rekindle.testing.network import Loop, batch, hybrid
from rekindle.tuner.net import operate

pytest.importorskip("peft")
timm = pytest.importorskip("timm")


def test_training_starts_at_the_source_and_moves_products_alone() -> None:
    plain = hybrid()
    start = plain.state_dict()
    loop = Loop([LoRA(rank=2)], copy.deepcopy(plain))
    x = batch(0)[0]
    assert torch.allclose(loop.model.eval()(x), plain.eval()(x), atol=1e-6)
    before, after = loop.state(), loop.run()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert moved and all("lora_" in key or key.startswith("fc.") for key in moved)
    assert all(torch.equal(after[key], value) for key, value in start.items() if not key.startswith("fc."))


@pytest.mark.parametrize("dora", [False, True])
def test_the_formula(dora: bool) -> None:
    loop = Loop([LoRA(rank=2, alpha=6.0, dora=dora)], hybrid().double())
    for layer in (loop.model.blocks[0].attn.qkv, loop.model.layer2[0].conv2):  # type: ignore[union-attr, index]
        a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
        with torch.no_grad():
            b.normal_(generator=torch.Generator().manual_seed(1))
        product = torch.einsum("ir,rj...->ij...", b.flatten(1), a) if a.ndim == 2 else torch.einsum("ir,rjkl->ijkl", b.flatten(1), a)
        weight = layer.base_layer.weight + 6.0 / 2 * product
        if dora:
            norm = lambda w: w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1))
            weight = weight * norm(layer.base_layer.weight) / norm(weight)
        x = torch.randn(3, *((8, 4, 4) if a.ndim == 4 else (8,)), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        found = layer(x)
        wanted = (
            nn.functional.conv2d(x, weight, padding=1)
            if a.ndim == 4
            else x @ weight.T + (layer.base_layer.bias if layer.base_layer.bias is not None else 0)
        )
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
def test_merged_it_is_the_network_as_before(name: str, dora: bool) -> None:
    options = {"img_size": 32, "depth": 2} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=3, **options).double()
    keys = set(model.state_dict())
    net = operate(model, [LoRA(rank=2, dora=dora)], Source(model), None)
    assert keys <= set(model.state_dict())
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.1)
    assert net.source_names.keys() <= dict(model.named_parameters()).keys()
    assert sorted(name for members in net.stages.values() for name in members) == sorted(set(net.parameters()) - set(net.head_parameters()))
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    wanted = model.eval()(x)
    other = timm.create_model(name, num_classes=3, **options).double()
    operate(other, [LoRA(rank=2, dora=dora)], Source(other), None)
    other.load_state_dict(model.state_dict())
    merge_(other)
    assert torch.allclose(other.eval()(x), wanted, rtol=0, atol=1e-10)
    assert set(other.state_dict()) == keys and not hasattr(other, "peft_config")


def test_attention_alone_and_beside_others() -> None:
    loop = Loop([LoRA(layers="attention"), L2SP(), Freeze(until="blocks.0")])
    trained = {name.partition(".lora_")[0] for name, p in loop.model.named_parameters() if p.requires_grad and "lora_" in name}
    assert trained == {"blocks.1.attn.qkv", "blocks.1.attn.proj"}


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("later_layer_forgetting", "layer_wise_reinit", "knowledge_evolution", "shrink_perturb", "reinit_top"):
        kind = methods()[name]
        with pytest.raises(ValueError, match=f"{name} draws weights of the backbone anew, which lora freezes"):
            Loop([LoRA(), kind(**kind.example)])
    with pytest.raises(ValueError, match="lora: Toy has no layer for layers='attention'"):
        from tests.toys import toy_tuner

        toy_tuner([LoRA(layers="attention")])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"lora needs the package peft; pip install 'rekindle\[peft\]'"):
        Loop([LoRA()])
