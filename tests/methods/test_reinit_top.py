"""Re-initialisation of the last transformer blocks, in float64."""

import copy

import pytest
import torch
from torch import nn

from rekindle import L2SP, Net, Source
from rekindle.methods.restarts.reinit_top import ReinitTop, reinitialize_
from rekindle.models.structure import transformer_blocks
from tests.toys import toy


class Block(nn.Module):
    """Attention with its norm, a scale and a hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.attn = nn.MultiheadAttention(32, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.gamma = nn.Parameter(torch.full((32,), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.gamma * self.mlp(self.attn(y, y, y)[0])


class Former(nn.Module):
    """Three blocks, a norm and a head with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.norm = nn.LayerNorm(32)
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.embed(x))).mean(1))


def former() -> Former:
    torch.manual_seed(0)
    model = Former().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def operated(method: ReinitTop, seed: int = 0) -> tuple[Former, Net, Source]:
    model = former()
    source = Source(model)
    net = Net(model, ("head",), {name: name for name, _ in model.named_parameters() if not name.startswith("head")}, seed=seed)
    method.surgery(net, source)
    return model, net, source


def test_the_last_blocks_and_nothing_else_have_new_values() -> None:
    model, before = operated(ReinitTop(blocks=2))[0], former()
    for name, parameter in before.named_parameters():
        drawn = name.startswith(("blocks.1.", "blocks.2.")) and not name.endswith("gamma")
        assert torch.equal(parameter, model.get_parameter(name)) != drawn, name
    block = model.blocks[2]
    assert torch.equal(block.norm.weight, torch.ones(32)) and not block.norm.bias.any()  # type: ignore[union-attr, operator]
    assert not block.attn.in_proj_bias.any() and not block.mlp[0].bias.any()  # type: ignore[union-attr, operator, index]
    weights = torch.cat([p.detach().flatten() for name, p in model.blocks[1:].named_parameters() if p.ndim == 2])
    assert weights.std().item() == pytest.approx(0.02, rel=0.03) and abs(weights.mean().item()) < 0.001


def test_drawn_tensors_are_new_to_penalties() -> None:
    model, net, source = operated(ReinitTop(blocks=1, norm=True))
    fresh = {name for name in net.new() if not name.startswith("head")}
    assert fresh == {name for name, _ in model.named_parameters() if name.startswith(("blocks.2.", "norm.")) and not name.endswith("gamma")}
    penalty = L2SP(alpha=1.0, beta=0.0)
    penalty.attach(net, source)
    assert penalty.value(None).detach() == 0  # type: ignore[arg-type]


def test_norm_behind_the_blocks_is_reset_on_request() -> None:
    kept, reset = operated(ReinitTop(blocks=1))[0], operated(ReinitTop(blocks=1, norm=True))[0]
    assert torch.equal(kept.norm.weight, former().norm.weight)
    assert torch.equal(reset.norm.weight, torch.ones(32)) and not reset.norm.bias.any()
    assert torch.equal(reset.head[0].weight, former().head[0].weight)  # type: ignore[arg-type, union-attr]


def test_draws_follow_the_seed_alone_and_are_made_in_place() -> None:
    model = former()
    pointers, keys = [p.data_ptr() for p in model.parameters()], list(model.state_dict())
    first, again, other = (operated(ReinitTop(blocks=2), seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in keys) and not torch.equal(
        first["blocks.2.mlp.0.weight"], other["blocks.2.mlp.0.weight"]
    )
    state = torch.get_rng_state()
    ReinitTop(blocks=3).surgery(Net(model, ("head",), {}), Source(model))
    assert pointers == [p.data_ptr() for p in model.parameters()] and keys == list(model.state_dict())
    assert torch.equal(state, torch.get_rng_state())


def test_zero_blocks_change_nothing() -> None:
    model, net, _ = operated(ReinitTop(blocks=0))
    assert all(torch.equal(value, former().state_dict()[key]) for key, value in model.state_dict().items())
    assert "blocks.2.norm.weight" in net.source_names


def test_batchnorm_in_a_block_starts_anew() -> None:
    norm = nn.BatchNorm1d(3)
    norm.running_mean.fill_(2.0)  # type: ignore[union-attr]
    nn.init.constant_(norm.weight, 5.0)
    reinitialize_(norm, torch.Generator())
    assert not norm.running_mean.any() and torch.equal(norm.weight, torch.ones(3))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blocks": -1}, "blocks must .*0, found -1"),
        ({"blocks": 1.0}, "found 1.0"),
        ({"blocks": True}, "found True"),
        ({"blocks": 1, "norm": 1}, "norm must .*True or False, found 1"),
        ({"blocks": 0, "norm": True}, "needs blocks"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReinitTop(**options)  # type: ignore[arg-type]


def test_networks_that_cannot_are_refused() -> None:
    with pytest.raises(ValueError, match="at most the 3 transformer blocks of the network, found 4"):
        operated(ReinitTop(blocks=4))
    with pytest.raises(ValueError, match="Toy has no transformer blocks"):
        ReinitTop(blocks=1).surgery(Net(toy(), ("fc",), {}), Source(toy()))
    bare = former()
    bare.norm = nn.Identity()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="no normalisation behind its last block"):
        ReinitTop(blocks=1, norm=True).surgery(Net(bare, ("head",), {}), Source(bare))


def test_real_transformers() -> None:
    timm, vision = pytest.importorskip("timm"), pytest.importorskip("torchvision.models")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3)
    torchvision_vit = vision.VisionTransformer(32, 16, 2, 2, 32, 64, num_classes=3)
    swin = vision.SwinTransformer([4, 4], 16, [1, 2], [2, 4], [4, 4], num_classes=3)
    found = [transformer_blocks(model) for model in (vit, torchvision_vit, swin, timm.create_model("resnet18"))]
    assert [len(names) for names in found] == [3, 2, 3, 0]
    for model, size in ((vit, 32), (torchvision_vit, 32), (swin, 64)):
        with torch.no_grad():
            for parameter in model.parameters():  # Heads that are 0 would hide the rest.
                parameter.add_(0.1)
        before = copy.deepcopy(model)
        ReinitTop(blocks=1, norm=True).surgery(Net(model, ("head",), {}), Source(model))
        assert list(model.state_dict()) == list(before.state_dict())
        x = torch.randn(2, 3, size, size)
        model(x).sum().backward()
        assert not torch.equal(model.eval()(x), before.eval()(x))
