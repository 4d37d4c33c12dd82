"""The noise methods on real networks: surgery keeps keys and evaluation, training runs and is noisy (label C5)."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

from rekindle import Method, Net, Source, Tuner
from rekindle.method import Clock
from rekindle.methods.noise.cnn_dropout import CNNDropout, block_places, drop, stage_places
from rekindle.methods.noise.disturb_label import DisturbLabel
from rekindle.methods.noise.dropconnect import DropConnect
from rekindle.methods.noise.dropout import Dropout
from rekindle.methods.noise.stoch_norm import StochNorm
from rekindle.methods.noise.stochastic_depth import StochasticDepth
from rekindle.models.cifar_resnet import CifarResNet
from rekindle.models.stages import stages
from rekindle.models.structure import ResidualBlock, residual_blocks

timm = pytest.importorskip("timm")
vision = pytest.importorskip("torchvision.models")

RESNETS = ["torchvision resnet18", "torchvision resnet50", "timm resnet18", "timm resnet50", "cifar_resnet8"]
RESIDUAL = [*RESNETS, "vit_tiny", "convnext_atto", "efficientnet_b0"]
NAMES = [*RESIDUAL, "squeezenet"]
HEADS = {
    "squeezenet": "classifier.1",
    "cifar_resnet8": "linear",
    "vit_tiny": "head",
    "convnext_atto": "head.fc",
    "efficientnet_b0": "classifier",
}


@cache
def made(name: str) -> nn.Module:
    build = {
        "torchvision resnet18": lambda: vision.resnet18(num_classes=3),
        "torchvision resnet50": lambda: vision.resnet50(num_classes=3),
        "timm resnet18": lambda: timm.create_model("resnet18", num_classes=3),
        "timm resnet50": lambda: timm.create_model("resnet50", num_classes=3),
        "cifar_resnet8": lambda: CifarResNet(8, 3),
        "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=3),
        "convnext_atto": lambda: timm.create_model("convnext_atto", num_classes=3),
        "efficientnet_b0": lambda: timm.create_model("efficientnet_b0", num_classes=3),
        "squeezenet": lambda: vision.squeezenet1_1(num_classes=3),
    }[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        for parameter in model.parameters():  # Scales and heads that start at 0 would hide what a method does.
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.05)
    return model


def network(name: str) -> nn.Module:
    return copy.deepcopy(made(name))


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def tuned(name: str, method: Method) -> tuple[nn.Module, Tuner]:
    model = network(name)
    return model, Tuner(model, [method], head=HEADS.get(name, "fc"), epochs=1, steps_per_epoch=1)


def cases() -> list[tuple[str, Method]]:
    found: list[tuple[str, Method]] = [(name, Dropout(0.5)) for name in NAMES if "resnet50" not in name]
    found += [
        (name, DropConnect(0.5, per))
        for name in ("cifar_resnet8", "convnext_atto", "vit_tiny", "squeezenet")
        for per in ("batch", "sample")
    ]  # type: ignore[arg-type]
    found += [(name, StochasticDepth(p_last=0.1)) for name in RESIDUAL]
    found += [(name, StochasticDepth(p_last=0.1, mode="sample", first_block_always=True)) for name in RESIDUAL]
    found += [(name, StochNorm()) for name in [*RESNETS, "efficientnet_b0"]]
    found += [(name, CNNDropout()) for name in [*RESNETS, "efficientnet_b0"]]
    found += [
        (name, CNNDropout(where="stage", kind="channel", p=0.3))
        for name in ("timm resnet18", "cifar_resnet8", "convnext_atto", "squeezenet")
    ]
    return [*found, ("vit_tiny", CNNDropout(where="stage"))]


def short(value: object) -> str:
    return str(value).replace("'", "")


@pytest.mark.parametrize(("name", "method"), cases(), ids=short)
def test_c5_keys_and_evaluation_stay_and_training_is_noisy(name: str, method: Method) -> None:
    plain, (model, tuner) = network(name), tuned(name, copy.deepcopy(method))
    keys, x = list(plain.state_dict()), images()
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert torch.equal(model.eval()(x), plain.eval()(x)) and torch.equal(model(x), model(x))
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.0))
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    torch.manual_seed(1)
    noisy = model.train()(x)
    noisy.sum().backward()
    torch.manual_seed(1)
    assert not torch.equal(noisy, plain.train()(x))
    assert all(p.grad is not None for p in model.parameters()) and torch.isfinite(noisy).all()
    assert list(model.state_dict()) == keys and all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "method", [Dropout(0), DropConnect(0), CNNDropout(0), StochasticDepth(1.0), DisturbLabel(0.0), StochNorm(1.0)], ids=str
)
def test_c5_neutral_settings_hang_nothing(method: Method) -> None:
    plain, (model, _) = network("cifar_resnet8"), tuned("cifar_resnet8", method)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(model(images()), plain(images()))
    labels = torch.arange(6) % 3
    assert torch.equal(method.labels(labels, None, Clock(0, 1)), labels)


@pytest.mark.parametrize("method", [StochasticDepth(), CNNDropout()], ids=str)
def test_networks_without_blocks_are_refused(method: Method) -> None:
    with pytest.raises(ValueError, match="SqueezeNet has no residual block that is known .*take a residual network"):
        tuned("squeezenet", method)


def test_cnn_dropout_refuses_blocks_without_a_second_convolution() -> None:
    with pytest.raises(ValueError, match="cnn_dropout: the residual blocks of ConvNeXt have no second convolution; try where='stage'"):
        tuned("convnext_atto", CNNDropout())


COUNTS = {
    "torchvision resnet18": 8,
    "torchvision resnet50": 16,
    "timm resnet50": 16,
    "cifar_resnet8": 3,
    "vit_tiny": 4,
    "convnext_atto": 12,
    "efficientnet_b0": 9,
}


@pytest.mark.parametrize("name", COUNTS)
def test_blocks_with_a_shortcut_are_counted(name: str) -> None:
    assert len(residual_blocks(network(name), "x")) == COUNTS[name]


@pytest.mark.parametrize("name", RESIDUAL)
def test_when_all_branches_fall_just_they_get_no_gradient(name: str) -> None:
    """The branch's end is after all of its layers, and the norms found are those inside it."""
    method = StochasticDepth()
    model = network(name)
    blocks = residual_blocks(model, "x")
    method.surgery(Net(model, (), {}), Source(model))
    method.load_state_dict({"alive": [False] * len(blocks)})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(images()).square().sum().backward()
    beside = ("downsample", "shortcut")
    for block in blocks:
        for child, p in block.module.named_parameters():
            assert p.grad is not None and bool(p.grad.any()) == child.startswith(beside), f"{block.name}.{child}"
        for child, value in block.module.named_buffers():
            assert torch.equal(value, before[f"{block.name}.{child}"]) != child.startswith(beside), f"{block.name}.{child}"
    skipped = (*(f"{block.name}." for block in blocks), "patch_embed")  # A class token cannot see the patches without a block.
    outside = [p for key, p in model.named_parameters() if not key.startswith(skipped)]
    assert outside and all(p.grad is not None and p.grad.any() for p in outside)


def test_a_networks_own_drop_path_is_switched_off() -> None:
    for model in (
        timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, drop_path_rate=0.9),
        vision.ConvNeXt([vision.convnext.CNBlockConfig(8, None, 2)], 0.9),
    ):
        StochasticDepth(mode="batch").surgery(Net(model, (), {}), Source(model))
        model.train()
        assert torch.equal(model(images(8)), model(images(8)))


def kinds(blocks: list[ResidualBlock]) -> set[str]:
    return {type(block.module).__name__ for block in blocks}


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("vit_b_16", 12, {"EncoderBlock"}),
        ("swin_t", 12, {"SwinTransformerBlock"}),
        ("convnext_tiny", 18, {"CNBlock"}),
        ("mobilenet_v2", 10, {"InvertedResidual"}),
        ("mobilenet_v3_small", 6, {"InvertedResidual"}),
        ("efficientnet_b0", 9, {"MBConv"}),
        ("mnasnet0_5", 10, {"_InvertedResidual"}),
        ("regnet_x_400mf", 22, {"ResBottleneckBlock"}),
    ],
)
def test_torchvisions_residual_networks_are_known(name: str, count: int, expected: set[str]) -> None:
    build = getattr(vision, name)
    if name == "regnet_x_400mf":
        model = build()
    else:
        with torch.device("meta"):
            model = build()
    blocks = residual_blocks(model, "x")
    assert len(blocks) == count and kinds(blocks) == expected
    ends = [id(end) for block in blocks for end in block.ends]
    assert len(set(ends)) == len(ends)


def test_cnn_dropout_stands_before_the_last_convolution_of_a_block() -> None:
    basic, bottleneck, efficient = network("torchvision resnet18"), network("timm resnet50"), network("efficientnet_b0")
    assert block_places(basic)[0] is basic.layer1[0].conv2  # type: ignore[union-attr, index]
    assert block_places(bottleneck)[15] is bottleneck.layer4[2].conv3  # type: ignore[union-attr, index]
    assert len(block_places(efficient)) == 9 and block_places(efficient)[0] is efficient.blocks[1][1].conv_pwl  # type: ignore[union-attr, index]
    mobile = vision.mobilenet_v2()
    assert block_places(mobile)[0] is mobile.features[3].conv[2] and isinstance(mobile.features[3].conv[2], nn.Conv2d)


def test_cnn_dropout_after_stages() -> None:
    for name, expected in (("timm resnet18", 4), ("cifar_resnet8", 3), ("convnext_atto", 4), ("efficientnet_b0", 7)):
        model = network(name)
        net = Net(model, (HEADS.get(name, "fc"),), {}, stages(model, [HEADS.get(name, "fc")]))
        assert len(stage_places(net)) == expected
    with pytest.raises(ValueError, match="has no numbered stages; its stages are stem"):
        stage_places(Net(model, (), {}, {"stem": []}))


def test_dropped_elements_and_channels() -> None:
    ones = torch.ones(20, 30, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    single, whole = drop(ones, 0.2, "element"), drop(ones, 0.2, "channel")
    for found in (single, whole):
        assert set(found.flatten().tolist()) == {0, 1.25} and found.mean().item() == pytest.approx(1, abs=0.05)
    maps = whole.flatten(2)
    assert torch.equal(maps.amin(2), maps.amax(2)) and not torch.equal(single.flatten(2).amin(2), single.flatten(2).amax(2))
    with pytest.raises(ValueError, match="needs maps of shape"):
        drop(torch.ones(2, 5, 7), 0.2, "channel")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p": 1.0}, "p must .*0 .*below 1, found 1.0"),
        ({"p": float("nan")}, "found nan"),
        ({"where": "head"}, 'where must .*"block" or "stage", found'),
        ({"kind": "pixel"}, 'kind must .*"element" or "channel", found'),
    ],
)
def test_arguments_of_cnn_dropout_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CNNDropout(**options)  # type: ignore[arg-type]


def test_methods_compose_on_one_network_and_survive_a_deep_copy() -> None:
    model = network("torchvision resnet18")
    recipe: list[Method] = [StochasticDepth(p_last=0.3), StochNorm(), CNNDropout(), Dropout(), DropConnect(), DisturbLabel()]
    tuner = Tuner(model, recipe, head="fc", epochs=1, steps_per_epoch=1)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.0))
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    first = model(images(4))
    torch.manual_seed(0)
    assert torch.equal(other(images(4)), first)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())
    assert torch.equal(model.eval()(images()), other.eval()(images()))
