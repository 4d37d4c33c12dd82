"""Freezing (oracle P3) and layer-wise learning rates."""

import pytest
import torch

from rekindle import L2SP
from rekindle.methods.layer_wise.freeze import Freeze
from rekindle.methods.layer_wise.layer_decay import LayerDecay
from rekindle.testing.network import Loop


def test_p3_frozen_stages_stay_to_the_bit() -> None:
    """Parameters and BatchNorm's statistics, though the loop calls train(), also under a penalty."""
    loop = Loop([Freeze(until="layer1"), L2SP(alpha=0.1)])
    before, after = loop.state(), loop.run()
    frozen = [key for key in before if key.startswith(("stem.", "layer1."))]
    assert any("running_mean" in key for key in frozen)
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert all(
        not torch.equal(before[key], after[key])
        for key in before
        if key not in frozen and key != "blocks.1.attn.qkv.bias" and "num_batches" not in key
    )
    assert all(p.grad is None for name, p in loop.model.named_parameters() if name in frozen)


def test_frozen_parameters_are_not_in_the_optimiser() -> None:
    loop = Loop([Freeze(until="blocks.1")])
    held = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in loop.model.fc.parameters()}  # type: ignore[union-attr]


def test_norm_train_lets_statistics_follow() -> None:
    loop = Loop([Freeze(until="layer1", norm="train")], epochs=1)
    before, after = loop.state(), loop.run()
    assert not torch.equal(before["layer1.0.bn1.running_mean"], after["layer1.0.bn1.running_mean"])
    assert torch.equal(before["layer1.0.bn1.weight"], after["layer1.0.bn1.weight"])


def test_an_unknown_stage_lists_them() -> None:
    with pytest.raises(ValueError, match=r"freeze: there is no stage 'layer9'; the stages are stem, layer1, layer2, blocks.0, blocks.1"):
        Loop([Freeze(until="layer9")])


def test_layer_decay_by_distance_from_the_head() -> None:
    loop = Loop([LayerDecay(factor=0.5)], lr=0.8)
    rates = {id(p): group["lr"] for group in loop.optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in loop.model.named_parameters()}
    wanted = {"fc.": 0.8, "blocks.1.": 0.4, "blocks.0.": 0.2, "layer2.": 0.1, "layer1.": 0.05, "stem.": 0.025}
    for name, rate in found.items():
        assert rate == pytest.approx(next(value for stage, value in wanted.items() if name.startswith(stage))), name
    loop.tuner.prepare(list)
    loop.tuner.start_epoch(0)
    assert {group["name"] for group in loop.optimizer.param_groups} == {"backbone", "head"}


def test_the_schedule_multiplies_the_scaled_rates() -> None:
    loop = Loop([LayerDecay(factor=0.5)], epochs=2, lr=0.8)
    loop.run(stop=(1, 1))
    assert sorted(group["lr"] for group in loop.optimizer.param_groups) == pytest.approx([0.0125, 0.025, 0.05, 0.1, 0.2, 0.4])
