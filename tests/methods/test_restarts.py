"""Methods that re-initialise: what each draws, keeps and forgets, in closed form, and RIFLE as a case of theirs."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from rekindle import L2SP, Method, Rifle
from rekindle.method import Clock, Net
from rekindle.methods import (
    Freeze,
    FreezeBatchNorm,
    KnowledgeEvolution,
    LaterLayerForgetting,
    LayerWiseReinit,
    ReinitTop,
    ShrinkPerturb,
    Zapping,
)
from rekindle.methods._depth import blocks_of
from rekindle.methods.restarts._draw import GENTLE, draw_, fresh, layers_of
from rekindle.models import stages
from rekindle.testing.network import Loop, hybrid
from tests.toys import toy, toy_tuner

EACH: list[Method] = [LaterLayerForgetting(), Zapping(), ShrinkPerturb(), KnowledgeEvolution(), LayerWiseReinit(generations=2)]
GENERATIONS = [method for method in EACH if not isinstance(method, Zapping)]


def around_restart(
    method: Method, at: int = 2, model: nn.Module | None = None, beside: list[Method] | None = None
) -> tuple[Loop, Any, Any]:
    """A run of four epochs up to a restart: the loop, and its weights and optimiser's state just before."""
    loop = Loop([method, *(beside or [])], model)
    loop.model.train()
    for epoch in range(at):
        loop.tuner.start_epoch(epoch)
        for step in range(loop.tuner.steps_per_epoch):
            loop.step(epoch, step)
        loop.scheduler.step()
    kept = {p: {key: value.clone() for key, value in state.items()} for p, state in loop.optimizer.state.items()}
    return loop, loop.state(), kept


def changed(loop: Loop, before: dict[str, Tensor]) -> set[str]:
    return {name for name, p in loop.model.named_parameters() if not torch.equal(before[name], p)}


class RifleByForgetting(LaterLayerForgetting):
    name = "rifle"


class RifleByZapping(Zapping):
    name = "rifle"


def test_rifle_is_forgetting_without_stages_to_the_bit() -> None:
    wanted = Loop([Rifle(periods=2, cycle="all")]).run()
    found = Loop([RifleByForgetting(stages=0)]).run()
    close = Loop([Rifle(periods=2, cycle="all", optimizer_state="keep")]).run()
    kept = Loop([RifleByForgetting(stages=0, optimizer_state="keep")]).run()
    assert all(torch.equal(value, kept[key]) for key, value in close.items())
    assert not all(torch.equal(value, found[key]) for key, value in wanted.items()), "here the backbone's momentum goes, too"


def test_rifle_a_is_zapping_once() -> None:
    rifle, zapping = Loop([Rifle(periods=2, cycle="none")]), Loop([RifleByZapping(every=2)])
    assert zapping.tuner.methods[0].restarts(Clock(0, 4)) == [2]  # type: ignore[attr-defined]
    for loop in (rifle, zapping):
        loop.run(stop=(2, 0))
    drawn = [loop.model.fc.weight for loop in (rifle, zapping)]  # type: ignore[union-attr]
    assert torch.equal(*drawn)
    assert all(torch.equal(value, zapping.state()[key]) for key, value in rifle.state().items() if not key.startswith("fc."))


def test_reinit_top_draws_what_forgetting_draws() -> None:
    top, forgetting = Loop([ReinitTop(blocks=1)]), Loop([LaterLayerForgetting()])
    assert top.tuner.net.source_names == forgetting.tuner.net.source_names
    assert {name for name in hybrid().state_dict()} - top.tuner.net.source_names.keys() >= {"blocks.1.attn.qkv.weight", "fc.weight"}


def test_forgetting_draws_what_stands_behind() -> None:
    loop, before, _ = around_restart(LaterLayerForgetting(stages=3))
    generator = torch.get_rng_state()
    assert loop.tuner.start_epoch(2)
    assert torch.equal(generator, torch.get_rng_state())
    behind = {name for name in before if name.startswith(("layer2.", "blocks.", "fc."))}
    assert changed(loop, before) == {name for name, _ in loop.model.named_parameters()} & behind
    assert not loop.optimizer.state
    norm = loop.model.layer2[0].bn1  # type: ignore[union-attr, index]
    assert torch.equal(norm.weight, torch.ones(8)) and torch.equal(norm.running_mean, torch.zeros(8)) and norm.num_batches_tracked == 0
    assert torch.equal(loop.model.layer1[0].bn1.running_mean, before["layer1.0.bn1.running_mean"])  # type: ignore[union-attr, index]
    bound = 1 / math.sqrt(8 * 9)
    weight = loop.model.layer2[0].conv2.weight  # type: ignore[union-attr, index]
    assert 0.9 * bound < float(weight.abs().max()) <= bound


def test_forgetting_may_keep_normalisation_and_state() -> None:
    loop, before, state = around_restart(LaterLayerForgetting(stages=3, norm="keep", optimizer_state="keep"))
    loop.tuner.start_epoch(2)
    assert {name for name in changed(loop, before) if "bn" in name or "norm" in name} == set()
    assert torch.equal(loop.model.state_dict()["layer2.0.bn1.running_mean"], before["layer2.0.bn1.running_mean"])
    assert all(torch.equal(state[p]["momentum_buffer"], loop.optimizer.state[p]["momentum_buffer"]) for p in state)


def test_what_is_to_be_drawn_has_no_anchor_and_follows_the_batches() -> None:
    anchored = L2SP(alpha=1.0, beta=0.0)
    loop = Loop([anchored, FreezeBatchNorm(), LaterLayerForgetting(stages=3)])
    pulled = {name for name, p in loop.model.named_parameters() if any(p is q for q, _ in anchored.gradient(Clock(0, 4)))}
    assert "layer1.0.conv1.weight" in pulled and not any(name.startswith(("layer2.", "blocks.", "fc.")) for name in pulled)
    before, after = loop.state(), loop.run()
    assert torch.equal(before["layer1.0.bn1.running_mean"], after["layer1.0.bn1.running_mean"])
    assert not torch.equal(before["layer2.0.bn1.running_mean"], after["layer2.0.bn1.running_mean"])


@pytest.mark.parametrize(("classes", "rows"), [(0, 3), (1, 1), (2, 2)])
def test_zapping_draws_rows(classes: int, rows: int) -> None:
    loop, before, state = around_restart(Zapping(classes=classes), at=1)
    fc = loop.model.fc
    state = {name: state[p]["momentum_buffer"] for name, p in fc.named_parameters()}  # type: ignore[union-attr]
    loop.tuner.start_epoch(1)
    assert changed(loop, before) == {"fc.weight", "fc.bias"}
    same = (fc.weight == before["fc.weight"]).all(1)  # type: ignore[union-attr, union-attr]
    assert int((~same).sum()) == rows and torch.equal(same, fc.bias == before["fc.bias"])  # type: ignore[union-attr]
    for name, p in fc.named_parameters():  # type: ignore[union-attr]
        kept = loop.optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)) if p in loop.optimizer.state else torch.zeros_like(p)
        assert torch.equal(kept[same], state[name][same]) and not kept[~same].any()


def test_zapping_ends_before_its_tail() -> None:
    clock = Clock(0, 10)
    assert Zapping().restarts(clock) == [1, 2, 3, 4, 5]
    assert Zapping(every=3, tail=0).restarts(clock) == [3, 6, 9]
    assert Zapping(every=3, tail=0.25).restarts(clock) == [3, 6]
    assert Zapping(tail=1).restarts(clock) == [] and not Zapping(tail=1).draws_head
    with pytest.raises(ValueError, match="zapping: classes must be at most the 3 of the head, found 4"):
        Loop([Zapping(classes=4)])


def double() -> nn.Module:
    return hybrid().double()


def at_restart(method: Method, model: nn.Module, scale: float = 1.7) -> tuple[Loop, dict[str, Tensor]]:
    """A loop whose weights have left their start by a factor, changed by the method without a step between."""
    loop = Loop([method], model)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    before = loop.state()
    method.change_(1, Clock(2, 4, seed=3))  # type: ignore[attr-defined]
    return loop, before


@pytest.mark.parametrize(("towards", "share"), [("zero", 0.4 * 1.7), ("source", 1 + 0.4 * 0.7)])
def test_shrinking_in_closed_form(towards: Any, share: float) -> None:
    model = double()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    at_restart(ShrinkPerturb(noise=0.0, towards=towards), model)
    for name, p in model.named_parameters():
        factor = 0.4 * 1.7 if name.startswith("fc.") else share
        assert torch.allclose(p, factor * start[name], rtol=1e-14, atol=1e-15), name


def test_perturbing_in_closed_form() -> None:
    model = toy(norm=True).double()
    _, tuner, _ = toy_tuner([ShrinkPerturb(preset="paper_code")], model)
    [method] = tuner.methods
    before = {name: value.clone() for name, value in model.state_dict().items()}
    method.change_(1, Clock(4, 8))  # type: ignore[attr-defined]
    noise = {name: (p - 0.4 * before[name]) / 0.1 for name, p in model.named_parameters()}
    assert torch.allclose(noise["body.1.weight"], torch.ones(5, dtype=torch.float64)) and noise["body.1.bias"].abs().max() < 1e-15
    for layer, width in (("body.0", 4), ("fc", 5)):
        assert 0.1 / math.sqrt(width) < noise[f"{layer}.weight"].abs().max() <= 1 / math.sqrt(width)
    printed = ShrinkPerturb(preset="paper")
    assert (printed.shrink, printed.noise, printed.draw, printed.towards) == (0.6, 0.01, "normal", "zero")
    wide = nn.Sequential()
    wide.add_module("body", nn.Linear(200, 200))
    wide.add_module("fc", nn.Linear(200, 3))
    _, tuner, _ = toy_tuner([printed], wide.double())
    old = wide.body.weight.detach().clone()
    printed.change_(1, Clock(4, 8))
    assert float((wide.body.weight - 0.6 * old).std()) == pytest.approx(0.01, rel=0.01)


def test_perturbing_starts_statistics_anew_and_leaves_what_is_frozen() -> None:
    loop, before, _ = around_restart(ShrinkPerturb(), beside=[Freeze(until="layer1")])
    loop.tuner.start_epoch(2)
    now = loop.state()
    assert all(torch.equal(before[key], now[key]) for key in before if key.startswith(("stem.", "layer1.")))
    assert torch.equal(now["layer2.0.bn1.running_mean"], torch.zeros(8)) and not torch.equal(
        before["layer2.0.bn1.running_mean"], torch.zeros(8)
    )


def test_kels_keeps_a_slim_network() -> None:
    method = KnowledgeEvolution(rate=0.5)
    loop, before = at_restart(method, double())
    model = loop.model
    for name, kept in {
        "stem.weight": (slice(0, 2), slice(None)),
        "layer1.0.conv1.weight": (slice(0, 2), slice(0, 2)),
        "layer2.0.conv1.weight": (slice(0, 4), slice(0, 2)),
        "blocks.0.attn.qkv.weight": (slice(0, 12), slice(0, 4)),
        "blocks.0.mlp.fc1.bias": (slice(0, 8),),
        "fc.weight": (slice(None), slice(0, 4)),
        "fc.bias": (slice(None),),
    }.items():
        same = model.get_parameter(name) == before[name]
        wanted = torch.zeros_like(same)
        wanted[kept] = True
        assert torch.equal(same, wanted), name
    assert all(torch.equal(before[key], value) for key, value in loop.state().items() if "bn" in key or "norm" in key)


@pytest.mark.parametrize("split", ["kels", "wels"])
def test_what_knowledge_evolution_draws_is_fresh(split: Any) -> None:
    """W <- M W + (1 - M) W_r with W_r of the layer's own initialisation, the same M in every generation."""
    method = KnowledgeEvolution(split=split, rate=0.5)
    loop, before = at_restart(method, double())
    first = loop.state()
    method.change_(2, Clock(3, 4, seed=3))
    second = loop.state()
    weight = "layer2.0.conv2.weight"
    drawn = first[weight] != before[weight]
    assert torch.equal(drawn, second[weight] != first[weight])
    assert float(first[weight][drawn].abs().max()) <= 1 / math.sqrt(8 * 9)
    assert float((~drawn).double().mean()) == pytest.approx(0.25 if split == "kels" else 0.5, abs=0.08)


def test_layer_wise_goes_up_block_by_block() -> None:
    once, twice, few = (LayerWiseReinit(generations=number) for number in (5, 9, 3))
    for method in (once, twice, few):
        Loop([method], epochs=9)
    assert [once.kept(number) for number in range(1, 5)] == [1, 2, 3, 4]
    assert [twice.kept(number) for number in range(1, 9)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [few.kept(number) for number in range(1, 3)] == [1, 3]


def test_layer_wise_restores_the_norm_of_what_it_keeps() -> None:
    model = double()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    loop, before = at_restart(LayerWiseReinit(generations=4), model)
    for name, p in model.named_parameters():
        if name.startswith(("stem.", "layer1.")):
            assert torch.allclose(p, start[name], rtol=1e-13, atol=0)
        elif start[name].ndim > 1:
            assert not torch.allclose(p, start[name]) and not torch.equal(p, before[name]), name
    assert set(loop.tuner.net.shared()) == {name for name in start if name.startswith(("stem.", "layer1."))} & set(
        loop.tuner.net.parameters()
    )


def test_blocks_take_the_plain_layers_behind_them() -> None:
    timm = pytest.importorskip("timm")
    counts = {"tf_efficientnet_lite0": 7, "resnet18": 4, "vit_tiny_patch16_224": 12, "convnext_atto": 4, "vgg11_bn": 10}
    for name, wanted in counts.items():
        with torch.device("meta"):
            model = timm.create_model(name)
        head = model.default_cfg["classifier"]
        blocks = blocks_of(Net(model, (head,), {}, stages(model, [head])))
        assert len(blocks) == wanted, name
    model = resnet18()
    assert blocks_of(Net(model, ("fc",), {}, stages(model, ["fc"])))[-1][0].startswith("layer4")


def test_drawing_leaves_other_buffers_and_the_module_itself() -> None:
    class Indexed(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.register_buffer("index", torch.arange(7))

    layer = Indexed()
    old = layer.weight.detach().clone()
    values = {id(tensor): value for tensor, value in fresh(layer)}
    assert torch.equal(layer.weight, old) and not torch.equal(values[id(layer.weight)], old)
    draw_([layer], torch.Generator().manual_seed(1))
    assert torch.equal(layer.index, torch.arange(7))  # type: ignore[arg-type]


def test_attention_of_torch_is_drawn_too() -> None:
    attention = nn.MultiheadAttention(8, 2)
    old = {name: p.detach().clone() for name, p in attention.named_parameters()}
    whole = nn.Sequential(attention)
    draw_(layers_of(whole, [name for name, _ in whole.named_parameters()]), torch.Generator().manual_seed(1))
    assert not torch.equal(old["in_proj_weight"], attention.in_proj_weight)


def test_a_network_without_normalisation_gets_a_gentle_head() -> None:
    model, tuner, _ = toy_tuner([Zapping()], toy())
    tuner.methods[0].change_(1, Clock(1, 8))  # type: ignore[attr-defined]
    assert float(model.fc.weight.abs().max()) <= GENTLE / math.sqrt(5)  # type: ignore[union-attr]


@pytest.mark.parametrize("method", GENERATIONS, ids=repr)
def test_each_generation_has_a_cosine(method: Any) -> None:
    loop = Loop([method], epochs=5)
    starts = method.restarts(Clock(0, 5, 0, 3))
    assert starts == [2]
    wanted = [1, 0.5, 1, 0.75, 0.25]
    assert [loop.tuner.lr_factor(group, epoch) for group in ("backbone", "head") for epoch in range(5)] == pytest.approx(wanted * 2)
    kind = type(method)
    assert kind(cycle="none").lr_factor("head", Clock(0, 5)) is None
    with pytest.raises(ValueError, match=rf"{method.name}: generations must be at most the 5 epochs of the run, found 6"):
        Loop([kind(generations=6)], epochs=5)


@pytest.mark.parametrize("method", EACH, ids=repr)
def test_short_runs_are_warned_of(method: Method) -> None:
    [said] = Loop([method], epochs=4, steps=39).tuner.warnings()
    assert said.startswith(f"{method.name}: the last restart leaves 78 steps")
    assert Loop([method], epochs=4, steps=40).tuner.warnings() == []


@pytest.mark.parametrize("method", [LaterLayerForgetting(stages=3), LayerWiseReinit(generations=2)], ids=repr)
def test_frozen_layers_are_refused(method: Method) -> None:
    loop = Loop([method, Freeze(until="layer2")])
    with pytest.raises(ValueError, match=rf"{method.name}: layer2.0.conv1.weight is frozen, so a fresh draw would never be trained"):
        loop.tuner.start_epoch(0)


def test_too_many_stages_are_refused() -> None:
    with pytest.raises(ValueError, match="later_layer_forgetting: stages must be at most the 4 of the network, found 5"):
        Loop([LaterLayerForgetting(stages=5)])


def test_published_settings() -> None:
    assert LaterLayerForgetting(preset="paper_code") == LaterLayerForgetting(11, stages=1, norm="keep", preset="paper_code")
    assert KnowledgeEvolution(preset="paper_code") == KnowledgeEvolution(5, split="kels", rate=0.5, preset="paper_code")
