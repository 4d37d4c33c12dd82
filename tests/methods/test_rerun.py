"""Running a network again behind one layer: to the bit what a full pass gives, and nothing before the layer is computed."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rekindle.models
from rekindle.methods.distillation._rerun import Rerun

COUNTS: Counter[str] = Counter()


class Counted(nn.Module):
    """Counts its computations, then calls what it holds."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.label, self.inner = name, inner

    def forward(self, x: Tensor) -> Tensor:
        COUNTS[self.label] += 1
        return self.inner(x)


class Block(nn.Module):
    """Two layers, one activation module used twice, and a shortcut added in place."""

    def __init__(self, name: str, act: nn.Module) -> None:
        super().__init__()
        self.first = Counted(f"{name}.first", nn.Linear(4, 4))
        self.second = Counted(f"{name}.second", nn.Linear(4, 4))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.act(self.first(x)))
        out += x
        return self.act(out)


class Shared(nn.Module):
    """Three blocks that share one activation module, which the network also calls itself; a pair on the way; work outside modules."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.act = Counted("act", nn.ReLU(inplace=inplace))
        self.stem = Counted("stem", nn.Linear(3, 4))
        self.blocks = nn.Sequential(*(Block(str(number), self.act) for number in range(3)))
        self.pair = Pair()
        self.fc = Counted("fc", nn.Linear(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x)) * 2
        x.add_(1.0)
        x, scale = self.pair(x)
        x *= scale["by"]
        return self.fc(self.act(self.blocks(x)) - 0.1)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return x.sin(), {"by": x.detach().mean()}


def shared(inplace: bool = False) -> Shared:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Shared(inplace).double().eval()


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5)


def resnet() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=3)


def silence(channel: int, axis: int, x: Tensor) -> Tensor:
    x.select(axis, channel).zero_()
    return x


@torch.no_grad()
def in_full(model: nn.Module, layer: str, change: Any, x: Tensor) -> Tensor:
    """The same by a hook and a full pass."""
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: change(output.clone()))
    try:
        return model(x)
    finally:
        handle.remove()


NETWORKS = {"cifar": lambda: rekindle.models.build("cifar_resnet8", weights="none").module, "vit": vit, "resnet": resnet}
LAYERS = [
    *(("cifar", layer, 1) for layer in ("conv1", "layer1", "layer2.0.conv1", "layer2.0.bn2", "layer3", "linear")),
    *(("vit", layer, 2) for layer in ("blocks.0", "blocks.1", "blocks.0.attn", "blocks.1.norm2", "norm")),
    *(("resnet", layer, 1) for layer in ("bn1", "relu", "layer1.0.relu", "layer2.0.bn2", "layer2.0.downsample.0", "layer4", "avgpool")),
]


@pytest.mark.parametrize(("kind", "layer", "axis"), LAYERS)
def test_equal_to_the_full_pass_to_the_bit(kind: str, layer: str, axis: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[kind]().eval()
        x = torch.randn(3, 3, 16 if kind == "vit" else 32, 16 if kind == "vit" else 32)
    rerun = Rerun(model, layer, x)
    with torch.no_grad():
        assert torch.equal(rerun.outputs, model(x))
    for _ in range(3):  # The first pass hands out copies, later ones only where they are needed.
        assert torch.equal(rerun(lambda output: output), rerun.outputs)
    for channel in range(2):
        change = partial(silence, channel, axis)
        assert torch.equal(rerun(change), in_full(model, layer, change, x))
    assert torch.equal(rerun(lambda output: output), rerun.outputs)


BEHIND = {
    "stem": {"act": 8, "0.first": 1, "0.second": 1, "1.first": 1, "1.second": 1, "2.first": 1, "2.second": 1, "fc": 1},
    "blocks.0": {"act": 5, "1.first": 1, "1.second": 1, "2.first": 1, "2.second": 1, "fc": 1},
    "blocks.1.first": {"act": 5, "1.second": 1, "2.first": 1, "2.second": 1, "fc": 1},
    "blocks.1.second": {"act": 4, "2.first": 1, "2.second": 1, "fc": 1},
    "blocks.2": {"act": 1, "fc": 1},
    "blocks": {"act": 1, "fc": 1},
    "fc": {},
    "": {},
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layer", list(BEHIND))
def test_nothing_before_the_layer_is_computed_again(layer: str, inplace: bool) -> None:
    model = shared(inplace)
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rerun = Rerun(model, layer, x)
    for _ in range(2):
        COUNTS.clear()
        found = rerun(partial(silence, 1, 1))
        assert dict(COUNTS) == BEHIND[layer]
        assert torch.equal(found, in_full(model, layer, partial(silence, 1, 1), x))


def test_every_call_of_a_shared_layer_is_changed() -> None:
    model = shared()
    x = torch.ones(2, 3, dtype=torch.float64)
    rerun = Rerun(model, "act", x)
    COUNTS.clear()
    found = rerun(partial(silence, 1, 1))
    assert COUNTS["stem"] == 0 and COUNTS["act"] == 7  # The first of its eight calls was recorded.
    assert torch.equal(found, in_full(model, "act", partial(silence, 1, 1), x))


def test_the_network_is_left_as_it_was() -> None:
    model = shared()
    own = partial(F.linear, weight=model.fc.inner.weight, bias=model.fc.inner.bias)  # type: ignore[arg-type]
    model.fc.inner.forward = own  # type: ignore[method-assign]
    x = torch.ones(2, 3, dtype=torch.float64)
    rerun = Rerun(model, "blocks.0", x)
    with pytest.raises(ZeroDivisionError):
        rerun(lambda output: output / (1 // 0))
    with pytest.raises(RuntimeError):
        Rerun(model, "blocks.0", torch.ones(2, 7, dtype=torch.float64))
    rerun(lambda output: output)
    assert model.fc.inner.forward is own
    assert [name for name, module in model.named_modules() if "forward" in module.__dict__] == ["fc.inner"]


def test_hooks_act_once() -> None:
    model = shared()
    model.blocks[0].first.register_forward_hook(lambda module, inputs, output: output + 1)
    model.stem.register_forward_hook(lambda module, inputs, output: output * 2)
    x = torch.ones(2, 3, dtype=torch.float64)
    rerun = Rerun(model, "blocks.0.second", x)
    assert torch.equal(rerun(lambda output: output), model(x))


def test_a_layer_that_does_not_run_or_gives_no_tensor_is_refused() -> None:
    model = shared()
    model.add_module("spare", nn.Linear(1, 1))
    for layer in ("spare", "pair"):
        with pytest.raises(ValueError, match=f"the layer '{layer}' does not run, or gives no single tensor"):
            Rerun(model, layer, torch.ones(2, 3, dtype=torch.float64))
