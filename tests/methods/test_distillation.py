"""Methods that keep what the source does: oracles K1 to K5, neutrality, layers, warm-up; on CNNs and on a small ViT."""

import copy
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rekindle
import rekindle.models
from rekindle import Batch, Clock, Method, Net, Source, Tuner
from rekindle.hooks import FeatureHooks
from rekindle.methods.distillation._layers import channels_first, pooled, stage_layers
from rekindle.methods.distillation._softened import softened_loss
from rekindle.methods.distillation.attention_transfer import AttentionTransfer, attention, attention_distance
from rekindle.methods.distillation.delta import DELTA
from rekindle.methods.distillation.feature_maps import FeatureMaps
from rekindle.methods.distillation.fsp import FSP, apart_at_length_1, flow, from_matrices, from_positions
from rekindle.methods.distillation.lwf import LwF
from rekindle.methods.distillation.soft_targets import SoftTargets
from rekindle.models import replace_classifier
from rekindle.tuner.net import operate

CLOCK = Clock(0, 4)
ZS, ZT = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[2.0, 0.0]], dtype=torch.float64)
ON_LAYERS = [FeatureMaps(), FSP(), AttentionTransfer(), AttentionTransfer(form="norm"), DELTA(weights="uniform", beta=0.0)]
ON_OUTPUTS = [SoftTargets(), LwF(), LwF(loss="ce")]


class Plain(nn.Module):
    """Two convolutional stages of different size and a linear head, without BatchNorm."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
        self.fc = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5)


def network(kind: str) -> tuple[Source, nn.Module]:
    """A source and the network with a head for three classes, in float64; seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {"plain": Plain, "vit": vit, "cifar": lambda: rekindle.models.build("cifar_resnet8", weights="none").module}
        model = made[kind]().double()
        source = Source(model)
        replace_classifier(model, 3)
    return source, model


def pictures(count: int = 4, size: int = 16) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def attached(method: Method, kind: str = "plain", **options: Any) -> tuple[Net, Source]:
    source, model = network(kind)
    net = operate(model, [method], source, None, **options)
    method.attach(net, source)
    return net, source


def batch_of(method: Method, net: Net, source: Source, x: Tensor) -> Batch:
    """What the tuner would give the method."""
    mine, theirs = FeatureHooks(net.model, method.hook_layers), FeatureHooks(source.model, method.source_hook_layers)
    labels = torch.arange(len(x)) % 3
    outputs = net.model(x)
    with torch.no_grad():
        said = source.model(x)
    batch = Batch(x, labels, None, outputs, CLOCK, mine.take(), said, theirs.take())
    mine.remove()
    theirs.remove()
    return batch


def penalty(method: Method, net: Net, source: Source, x: Tensor) -> Tensor:
    found = method.penalty(batch_of(method, net, source, x))
    assert found is not None
    return found


def moved(net: Net, names: str = "") -> None:
    """Shift every parameter outside the head a little."""
    with torch.no_grad():
        for name, p in net.shared().items():
            if name.startswith(names):
                p.add_(0.1 * torch.linspace(-1, 1, p.numel(), dtype=p.dtype).view_as(p))


def test_k1_soft_targets() -> None:
    assert float(softened_loss(ZS, ZT, 1.0)) == pytest.approx(0.0671307544531, abs=1e-12)
    assert float(softened_loss(ZS, ZT, 2.0)) == pytest.approx(0.0263445859769, abs=1e-12)
    assert float(softened_loss(ZS, ZT, 2.0, scale_t2=True)) == pytest.approx(0.105378343908, abs=1e-12)
    assert float(softened_loss(ZS, ZT, 2.0, "ce")) == pytest.approx(0.608547694865, abs=1e-12)
    z = ZS.clone().requires_grad_()
    softened_loss(z, ZT, 2.0).backward()
    assert z.grad is not None and z.grad.flatten().tolist() == pytest.approx([-0.0542996237, 0.0542996237], abs=1e-10)


def test_k1_through_the_methods() -> None:
    batch = Batch(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long), None, ZS, CLOCK, {"source_head": ZS}, ZT)
    soft, lwf, entropy = SoftTargets(weight=0.5, temperature=2.0), LwF(strength=3.0), LwF(loss="ce", scale_t2=True)
    for method in (soft, lwf, entropy):
        method.hook_layers = ("source_head",)
    assert float(soft.penalty(batch)) == pytest.approx(0.5 * 0.105378343908, abs=1e-12)
    assert float(lwf.penalty(batch)) == pytest.approx(3 * 0.0263445859769, abs=1e-12)
    assert float(entropy.penalty(batch)) == pytest.approx(4 * 0.608547694865, abs=1e-12)
    assert soft.task_weight() == 0.5 and lwf.task_weight() == 1.0


def test_k2_softening_is_the_renormalised_root() -> None:
    root = torch.softmax(ZT, 1).sqrt()
    assert (root / root.sum()).flatten().tolist() == pytest.approx([0.731058578630, 0.268941421370], abs=1e-12)
    targets = torch.softmax(ZT / 2, 1)
    assert targets.flatten().tolist() == pytest.approx([0.731058578630, 0.268941421370], abs=1e-12)
    assert float(softened_loss(ZS, ZT, 2.0, "ce")) == pytest.approx(float(-(targets * torch.log_softmax(ZS / 2, 1)).sum()))


class Sheet(nn.Module):
    """A map (1, 1, 2, 2) as it is, then a head: the layer `map` gives what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Identity()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.map(x).flatten(1))


def on_sheet(method: Method, mine: Tensor, theirs: Tensor) -> float:
    model = Sheet()
    method.attach(Net(model, ("fc",), {}), Source(model))
    found = method.penalty(
        Batch(mine, torch.zeros(len(mine)), None, mine, CLOCK, {"map": mine, "map:input": mine}, None, {"map": theirs, "map:input": theirs})
    )
    assert found is not None
    return float(found)


def test_k3_feature_maps() -> None:
    mine, theirs = (torch.tensor(rows, dtype=torch.float64).view(1, 1, 2, 2) for rows in ([[1, 2], [3, 4]], [[0, 2], [3, 2]]))
    assert on_sheet(FeatureMaps(strength=1.0, layers="map", reduction="sum"), mine, theirs) == 2.5
    twice = mine.repeat(2, 1, 1, 1), theirs.repeat(2, 1, 1, 1)
    assert on_sheet(FeatureMaps(strength=1.0, layers="map", reduction="sum"), *twice) == 5.0
    assert on_sheet(FeatureMaps(strength=1.0, layers="map", reduction="batchmean"), *twice) == 2.5


def test_k4_fsp() -> None:
    a, b, c = (torch.tensor(row, dtype=torch.float64).view(1, 1, 1, 2) for row in ([1, 2], [3, 4], [1, 1]))
    assert float(flow(a[0], b[0])) == 5.5 and float(flow(c[0], b[0])) == 3.5
    model = Sheet()
    method = FSP(strength=1.0, layers=("map",), normalize=False)
    method.attach(Net(model, ("fc",), {}), Source(model))
    batch = Batch(a, torch.zeros(1), None, a, CLOCK, {"map:input": a, "map": b}, None, {"map:input": c, "map": b})
    assert float(method.penalty(batch)) == 4.0


def map_pairs(channels: int, others: int, positions: int) -> list[tuple[Tensor, Tensor]]:
    """Two pairs of maps of three samples."""
    draw = torch.Generator().manual_seed(1)
    shapes = ((3, channels, positions), (3, others, positions))
    return [tuple(torch.randn(shape, dtype=torch.float64, generator=draw) for shape in shapes) for _ in range(2)]  # type: ignore[misc]


SIZES = [(3, 4, 16), (16, 24, 4)]  # Fewer channels than positions, and more.


@pytest.mark.parametrize("sizes", SIZES)
def test_fsp_of_matrices_at_length_1_does_not_know_their_size(sizes: tuple[int, int, int]) -> None:
    (a, b), (c, d) = mine, theirs = map_pairs(*sizes)
    found = apart_at_length_1(mine, theirs)
    assert torch.allclose(found, apart_at_length_1((10 * a, b), (c, 0.1 * d)), rtol=1e-12)
    assert torch.allclose(found, 2 - 2 * torch.cosine_similarity(flow(a, b).flatten(1), flow(c, d).flatten(1)), rtol=1e-12)
    assert float(apart_at_length_1(mine, mine).sum()) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("sizes", SIZES)
def test_fsp_at_length_1_has_the_gradient_of_its_formula(sizes: tuple[int, int, int]) -> None:
    mine, theirs = map_pairs(*sizes)
    for one in mine:
        one.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: apart_at_length_1((a, b), theirs), mine)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    units = [one / one.flatten(1).norm(dim=1)[:, None, None] for one in (flow(*mine), flow(*theirs))]
    wanted = torch.autograd.grad(weights @ (units[0] - units[1]).square().sum((1, 2)), mine)
    for way in (from_positions, lambda one, other: from_matrices(flow(*one), flow(*other))):
        for found, right in zip(torch.autograd.grad(weights @ way(mine, theirs), mine), wanted, strict=True):
            assert torch.allclose(found, right, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("whose", [0, 1])
def test_fsp_of_matrices_of_zeros_sends_nothing(whose: int, sizes: tuple[int, int, int]) -> None:
    pairs = map_pairs(*sizes)
    pairs[whose] = tuple(torch.zeros_like(one) for one in pairs[whose])  # type: ignore[assignment]
    first = pairs[0][0].requires_grad_()
    apart = apart_at_length_1(*pairs)
    apart.sum().backward()
    assert torch.allclose(apart, torch.ones_like(apart))
    assert first.grad is not None and bool(torch.isfinite(first.grad).all()) and (whose == 1 or not first.grad.any())


def test_k4_is_a_mean_over_samples_and_a_sum_over_pairs() -> None:
    method = FSP()
    net, source = attached(method)
    moved(net)
    x = pictures()
    one_by_one = torch.stack([penalty(method, net, source, row[None]) for row in x])
    assert torch.allclose(penalty(method, net, source, x), one_by_one.mean())
    parts = []
    for layer in ("layer1", "layer2"):
        single = FSP(layers=layer)
        single.attach(net, source)
        parts.append(penalty(single, net, source, x))
    assert torch.allclose(penalty(method, net, source, x), parts[0] + parts[1]) and min(parts) > 0


def test_k5_attention_transfer() -> None:
    mine, theirs = (torch.tensor(row, dtype=torch.float64).view(1, 1, 2) for row in ([3, 4], [4, 3]))
    q, p = attention(mine), attention(theirs)
    assert q.flatten().tolist() == pytest.approx([0.490261239633, 0.871575537125], abs=1e-12)
    assert float((q - p).square().sum()) == pytest.approx(0.290801186944, abs=1e-12)
    assert float(attention_distance(q, p, "norm")) == pytest.approx(0.539259851040 / 2, abs=1e-12)
    assert float(attention_distance(q, p, "mean_square")) == pytest.approx(0.145400593472, abs=1e-12)
    maps = mine.view(1, 1, 1, 2), theirs.view(1, 1, 1, 2)
    assert on_sheet(AttentionTransfer(layers="map"), *maps) == pytest.approx(145.400593472, abs=1e-9)
    assert on_sheet(AttentionTransfer(layers="map", form="norm"), *maps) == pytest.approx(269.62992552, abs=1e-8)


@pytest.mark.parametrize("form", ["mean_square", "norm"])
def test_k5_an_empty_map_and_equal_maps_have_finite_gradients(form: str) -> None:
    activation = torch.zeros(2, 3, 4, dtype=torch.float64)
    activation[1] = 1.0
    mine = activation.clone().requires_grad_()
    assert attention(mine)[0].abs().max() == 0
    attention_distance(attention(mine), attention(activation), form).backward()
    assert mine.grad is not None and mine.grad.abs().max() == 0
    attention_distance(attention(mine), attention(activation.flip(0)), form).backward()
    assert torch.isfinite(mine.grad).all()


@pytest.mark.parametrize("kind", ["plain", "vit", "cifar"])
@pytest.mark.parametrize("method", ON_LAYERS, ids=lambda m: repr(m))
def test_layers_zero_at_the_source_and_above_elsewhere(kind: str, method: Method) -> None:
    net, source = attached(method, kind)
    net.model.eval()  # In training mode BatchNorm alone would keep the two apart.
    x = pictures()
    start = penalty(method, net, source, x)
    start.backward()
    assert float(start.detach()) == 0.0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in net.model.parameters())
    moved(net)
    found = penalty(method, net, source, x)
    found.backward()
    assert float(found.detach()) > 0
    stages = [p for name, p in net.shared().items() if name.startswith(("layer1", "blocks.0"))]
    assert stages and all(p.grad is not None and p.grad.abs().max() > 0 for p in stages if p.ndim > 1)
    assert all(torch.isfinite(p.grad).all() for p in net.model.parameters() if p.grad is not None)
    assert all(p.grad is None for p in net.head_parameters().values())


@pytest.mark.parametrize("kind", ["plain", "vit", "cifar"])
@pytest.mark.parametrize("method", ON_OUTPUTS, ids=lambda m: repr(m))
def test_outputs_of_the_kept_classifier(kind: str, method: Method) -> None:
    net, source = attached(method, kind)
    for module in net.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = pictures()
    start = penalty(method, net, source, x)
    entropy = 0.0
    if isinstance(method, LwF) and method.loss == "ce":
        p = torch.softmax(source.model(x) / method.temperature, 1)
        entropy = float(-(p * p.log()).sum(1).mean())
    assert float(start.detach()) == pytest.approx(entropy, abs=1e-12)
    moved(net)
    found = penalty(method, net, source, x)
    found.backward()
    assert float(found.detach()) > entropy
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in net.head_parameters().values())
    kept = dict(net.model.get_submodule("source_head").named_parameters())
    trained = isinstance(method, LwF)
    assert all(p.requires_grad == trained and (p.grad is not None) == trained for p in kept.values())
    assert all(f"source_head.{name}" in net.source_names for name in kept)


def test_the_sum_of_features_grows_with_the_batch() -> None:
    for method, factor in ((FeatureMaps(reduction="sum"), 2), (FeatureMaps(), 1)):
        net, source = attached(method)
        moved(net)
        x = pictures()
        once, twice = penalty(method, net, source, x), penalty(method, net, source, torch.cat([x, x]))
        assert float(twice.detach()) == pytest.approx(factor * float(once.detach()))


@pytest.mark.parametrize("method", [*ON_LAYERS, *ON_OUTPUTS], ids=lambda m: repr(m))
def test_penalties_of_half_precision_are_at_least_float32(method: Method) -> None:
    method = copy.copy(method)
    source, model = network("plain")
    model.float()
    source.model.float()
    net = operate(model, [method], source, None)
    method.attach(net, source)
    moved(net)
    x = pictures().float()
    batch = batch_of(method, net, source, x)
    exact = method.penalty(batch)
    with torch.autocast("cpu", torch.bfloat16):
        again = method.penalty(batch)
    assert exact is not None and again is not None and again.dtype == torch.float32
    assert float(again.detach()) == pytest.approx(float(exact.detach()), rel=1e-6)
    halved = Batch(
        batch.inputs,
        batch.labels,
        None,
        batch.outputs,
        CLOCK,
        {k: v.bfloat16() for k, v in batch.activations.items()},
        batch.source_outputs,
        {k: v.bfloat16() for k, v in batch.source_activations.items()},
    )
    rounded = method.penalty(halved)
    assert rounded is not None and rounded.dtype == torch.float32


@pytest.mark.parametrize("method", [*ON_LAYERS, *ON_OUTPUTS], ids=lambda m: repr(m))
def test_neutral_settings_change_nothing(method: Method) -> None:
    neutral = type(method)(**type(method).neutral)
    source, model = network("plain")
    keys = list(model.state_dict())
    net = operate(model, [neutral], source, None)
    neutral.attach(net, source)
    assert not neutral.uses_source and not neutral.hook_layers and not neutral.source_hook_layers and neutral.task_weight() == 1.0
    assert list(model.state_dict()) == keys and not model.fc._forward_pre_hooks  # type: ignore[union-attr]
    assert neutral.penalty(batch_of(neutral, net, source, pictures())) is None and neutral.gradient(CLOCK) == []
    assert neutral.lr_factor("backbone", CLOCK) is None


def test_stages_leave_out_the_stem_and_whatever_holds_the_classifier() -> None:
    assert attached(FeatureMaps(), "cifar")[0].stages.keys() >= {"stem", "layer1"}
    assert stage_layers(attached(FeatureMaps(), "cifar")[0]) == ("layer1", "layer2", "layer3")
    assert stage_layers(attached(FeatureMaps(), "vit")[0]) == ("blocks.0", "blocks.1", "norm")
    assert stage_layers(attached(FeatureMaps())[0]) == ("layer1", "layer2")  # Its stem is a module.
    model = nn.Sequential()
    model.add_module("body", nn.Linear(2, 2))
    model.add_module("top", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)))
    net = Net(model, ("top.1",), {}, {"stem": [], "body": ["body.weight"], "top": ["top.0.weight"]})
    assert stage_layers(net) == ("body",)


def test_one_layer_or_some_can_be_named() -> None:
    one, two = FeatureMaps(layers="layer2"), FeatureMaps(layers=("layer1.0", "layer2"))
    assert attached(one)[0] and one.hook_layers == one.source_hook_layers == ("layer2",)
    assert attached(two)[0] and two.hook_layers == ("layer1.0", "layer2")


@pytest.mark.parametrize("layers", ["layer9", ("layer1", "top")])
def test_unknown_layers_are_refused_with_candidates(layers: Any) -> None:
    for kind in (FeatureMaps, FSP, AttentionTransfer, DELTA):
        with pytest.raises(ValueError, match="no layer '(layer9|top)'; candidates are .*layer2"):
            attached(kind(layers=layers))


def test_layers_the_source_lacks_and_other_widths_are_refused() -> None:
    source, model = network("plain")
    method = FeatureMaps(layers="extra")
    model.add_module("extra", nn.Identity())
    net = Net(model, ("fc",), {})
    with pytest.raises(ValueError, match="the source has no layer 'extra'"):
        method.attach(net, source)
    method = FeatureMaps(layers="fc")
    method.attach(net, source)
    with pytest.raises(ValueError, match="layer fc has 3 channels, but 4 in the source"):
        method.penalty(batch_of(method, net, source, pictures()))
    with pytest.raises(ValueError, match="no stage that its source has too"):
        FeatureMaps().attach(Net(model, ("fc",), {}, {}), source)


def test_a_layer_that_did_not_run_is_named() -> None:
    source, model = network("plain")
    method = AttentionTransfer(layers="layer1")
    method.attach(Net(model, ("fc",), {}), source)
    with pytest.raises(ValueError, match="layer layer1 did not run"):
        method.penalty(Batch(pictures(), torch.zeros(4), None, pictures(), CLOCK))


def test_channels_come_first() -> None:
    model = nn.Sequential(nn.Identity(), nn.Conv2d(2, 3, 1))
    net = Net(model, (), {})
    vector, tokens, maps = torch.rand(2, 5), torch.rand(2, 7, 5), torch.rand(2, 5, 3, 4)
    assert torch.equal(channels_first(vector, net, "0"), vector[:, :, None])
    assert torch.equal(channels_first(tokens, net, "0"), tokens.transpose(1, 2))
    assert torch.equal(channels_first(maps, net, "0:input"), maps.flatten(2))
    model.output_fmt = "NHWC"  # type: ignore[assignment]
    assert torch.equal(channels_first(maps, net, "0"), maps.permute(0, 3, 1, 2).flatten(2))
    assert torch.equal(channels_first(maps, net, "1"), maps.flatten(2))


def test_channels_of_swins_are_last() -> None:
    import timm
    import torchvision

    swin = torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=3).eval()
    other = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=28, depths=(1, 1), num_heads=(2, 2), embed_dim=8, num_classes=3
    ).eval()
    for model, layers, size in ((swin, ("features.1", "features.2"), 32), (other, ("layers.0", "layers.1"), 28)):
        hooks = FeatureHooks(model, layers)
        model(torch.randn(2, 3, size, size))
        kept = hooks.take()
        assert [channels_first(kept[layer], Net(model, (), {}), layer).shape[:2] for layer in layers] == [(2, 8), (2, 16)]


def test_the_larger_map_is_averaged_down() -> None:
    large, small = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 2, 2, 2)
    a, b = pooled(large, small)
    assert a.flatten().tolist() == [2.5, 4.5, 10.5, 12.5] and b.shape == (1, 2, 4)
    a, b = pooled(torch.arange(6.0).view(1, 1, 6), torch.zeros(1, 1, 3))
    assert a.flatten().tolist() == [0.5, 2.5, 4.5] and b.shape == (1, 1, 3)
    a, b = pooled(torch.zeros(1, 1, 1), large)
    assert b.flatten().tolist() == [7.5] and a.shape == (1, 1, 1)


@pytest.mark.parametrize("made", [LwF, SoftTargets])
def test_a_source_without_a_classifier_is_refused(made: type[Method]) -> None:
    source, model = network("plain")
    with pytest.raises(ValueError, match="no single classifier to keep"):
        made().surgery(Net(model, ("fc",), {}), source)


@pytest.mark.parametrize("made", [LwF, SoftTargets])
def test_a_deep_copy_feeds_its_own_classifier(made: type[Method]) -> None:
    net, _ = attached(made())
    other = copy.deepcopy(net.model)
    seen = []
    net.model.get_submodule("source_head").register_forward_hook(lambda *_: seen.append("first"))
    other.get_submodule("source_head").register_forward_hook(lambda *_: seen.append("copy"))
    other(pictures())
    assert seen == ["copy"]


def tuned(method: Method, epochs: int = 4, kind: str = "plain") -> tuple[Tuner, torch.optim.Optimizer]:
    source, model = network(kind)
    tuner = Tuner(model, [method], source=source, epochs=epochs, steps_per_epoch=2)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.05), momentum=0.9)
    return tuner, optimizer


def train(tuner: Tuner, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    scheduler = tuner.scheduler(optimizer)
    x, y = pictures(6), torch.arange(6) % 3
    for epoch in range(epochs):
        tuner.start_epoch(epoch)
        for _ in range(tuner.steps_per_epoch):
            tuner.loss(tuner.net.model, x, y, nn.functional.cross_entropy).backward()
            tuner.gradients_()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()


@pytest.mark.parametrize("kind", ["plain", "vit", "cifar"])
@pytest.mark.parametrize("method", [*ON_LAYERS, *ON_OUTPUTS], ids=lambda m: repr(m))
def test_training_through_the_tuner(kind: str, method: Method) -> None:
    tuner, optimizer = tuned(copy.copy(method), kind=kind)
    tuner.prepare(list)
    frozen = {name: value.clone() for name, value in tuner.source.model.state_dict().items()}
    train(tuner, optimizer, 1)
    assert math.isfinite(tuner.penalties()[method.name]) and tuner.penalties()[method.name] > 0
    assert all(torch.equal(value, frozen[name]) for name, value in tuner.source.model.state_dict().items())
    assert all(torch.isfinite(p).all() for p in tuner.net.model.parameters())


def test_a_strong_penalty_keeps_activations_nearer() -> None:
    distances = []
    for strength in (1e-9, 3.0):
        tuner, optimizer = tuned(FeatureMaps(strength=strength))
        train(tuner, optimizer, 4)
        measure = FeatureMaps(strength=1.0)
        measure.attach(tuner.net, tuner.source)
        distances.append(float(penalty(measure, tuner.net, tuner.source, pictures(6)).detach()))
    assert distances[1] < 0.5 * distances[0]


def test_lwf_trains_the_kept_classifier_and_soft_targets_do_not() -> None:
    for method, moves in ((LwF(), True), (SoftTargets(), False)):
        tuner, optimizer = tuned(method)
        before = tuner.net.model.get_submodule("source_head").weight.clone()  # type: ignore[union-attr, operator]
        train(tuner, optimizer, 1)
        assert torch.equal(before, tuner.net.model.get_submodule("source_head").weight) is not moves  # type: ignore[union-attr, arg-type]


def test_lwf_warm_up_trains_the_new_head_alone() -> None:
    tuner, optimizer = tuned(LwF(warmup_epochs=2))
    head = set(tuner.net.head_parameters())
    before = {name: p.detach().clone() for name, p in tuner.net.parameters().items()}
    train(tuner, optimizer, 2)
    changed = {name for name, p in tuner.net.parameters().items() if not torch.equal(p, before[name])}
    assert changed == head
    assert [tuner.lr_factor("backbone", epoch) for epoch in range(4)] == pytest.approx([0, 0, 0.5, 0.5 * (1 + math.cos(0.75 * math.pi))])
    assert [tuner.lr_factor("head", epoch) for epoch in range(2)] == pytest.approx([1, 0.5 * (1 + math.cos(0.25 * math.pi))])
    held = next(p for name, p in tuner.net.parameters().items() if name not in head)
    assert held in optimizer.state
    optimizer.zero_grad()
    assert tuner.start_epoch(2) is False  # Nothing is re-initialised, but what gathered at rate 0 is gone.
    assert held not in optimizer.state and tuner.net.head_parameters()["fc.weight"] in optimizer.state


def test_lwf_warm_up_must_end_and_owns_the_backbones_rate() -> None:
    from rekindle import Rifle

    with pytest.raises(ValueError, match="warmup_epochs must be below the 4 epochs"):
        tuned(LwF(warmup_epochs=4))
    source, model = network("plain")
    with pytest.raises(ValueError, match="lwf and rifle both set the learning rate of the backbone"):
        Tuner(model, [LwF(warmup_epochs=1), Rifle(cycle="all")], source=source, epochs=4, steps_per_epoch=1)


@pytest.mark.parametrize(
    ("kind", "option", "value", "allowed"),
    [
        (SoftTargets, "weight", 1.1, "number .*0 .*1"),
        (SoftTargets, "weight", float("nan"), "number .*0 .*1"),
        (SoftTargets, "temperature", 0, "above 0"),
        (SoftTargets, "scale_t2", 1, "True or False"),
        (LwF, "strength", -1, "number .*0"),
        (LwF, "strength", True, "number .*0"),
        (LwF, "temperature", float("inf"), "above 0"),
        (LwF, "loss", "mse", '"kl" or "ce"'),
        (LwF, "scale_t2", "no", "True or False"),
        (LwF, "warmup_epochs", -1, "whole number .*0"),
        (LwF, "warmup_epochs", True, "whole number .*0"),
        (FeatureMaps, "strength", float("nan"), "number .*0"),
        (FeatureMaps, "reduction", "mean", '"relative" or "batchmean" or "sum"'),
        (FeatureMaps, "layers", (), '"stages", .*name'),
        (FeatureMaps, "layers", ["layer1"], '"stages", .*name'),
        (FeatureMaps, "layers", ("a", "a"), "names, each once"),
        (FSP, "strength", "1", "number .*0"),
        (FSP, "layers", ("",), '"stages", .*name'),
        (AttentionTransfer, "beta", -1.0, "number .*0"),
        (AttentionTransfer, "form", "code", '"mean_square" or "norm"'),
    ],
)
def test_options_are_checked(kind: type[Method], option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.name}: {option} must .*{allowed}.*found {re.escape(repr(value))}"):
        kind(**{option: value})


@pytest.mark.parametrize("method", [SoftTargets(), LwF()], ids=repr)
def test_dropout_in_the_sources_classifier_does_not_count_as_forgetting(method: Method) -> None:
    """SqueezeNet's classifier begins with dropout; an unchanged network must agree with its source in training too."""
    source, model = rekindle.load("torchvision:squeezenet1_0", classes=3, weights="none")
    tuner = Tuner(model, [method], source=source, epochs=1, steps_per_epoch=1)
    tuner.scheduler(torch.optim.SGD(tuner.param_groups(lr=0.1)))
    tuner.start_epoch(0)
    tuner.loss(model.train(), torch.randn(2, 3, 64, 64), torch.tensor([0, 1]), torch.nn.functional.cross_entropy)
    assert tuner.penalties()[method.name] == pytest.approx(0.0, abs=1e-6)
