"""Stochastic depth (label C1), in float64 on a small residual network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rekindle import Net, Source, Tuner
from rekindle.method import Clock
from rekindle.methods.noise.stochastic_depth import Gate, StochasticDepth, survival
from rekindle.models.structure import residual_blocks


class BasicBlock(nn.Module):
    """One convolution with its norm, and a shortcut with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(2)
        self.downsample = nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.downsample(x) + self.bn2(self.conv(x))


class Residual4(nn.Module):
    """Four blocks and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(BasicBlock() for _ in range(4)))
        self.fc = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(x).mean((2, 3)))


def network(seed: int = 0) -> Residual4:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual4().double()


def images(key: int = 0, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(key), dtype=torch.float64)


def operated(method: StochasticDepth, alive: list[bool | None] | None = None) -> Residual4:
    model = network()
    method.surgery(Net(model, ("fc",), {}), Source(model))
    if alive:
        method.load_state_dict({"alive": alive})
    return model


def by_hand(model: Residual4, x: torch.Tensor, factors: list[float]) -> torch.Tensor:
    for block, factor in zip(model.blocks, factors, strict=True):
        y = block.downsample(x)  # type: ignore[operator, union-attr]
        x = y + factor * block.bn2(block.conv(x)) if factor else y  # type: ignore[operator, union-attr]
    return model.fc(x.mean((2, 3)))


def test_c1_survival_in_resnet_50() -> None:
    found = survival(16, 0.5)
    assert found[:2] == [0.96875, 0.9375] and sum(found) == pytest.approx(11.75, abs=1e-12)
    assert [found[last - 1] for last in (3, 7, 13, 16)] == [0.90625, 0.78125, 0.59375, 0.5]
    always = survival(16, 0.5, first_block_always=True)
    assert always[0] == 1 and always[1] == pytest.approx(0.966667, abs=1e-6) and always[-1] == 0.5
    assert sum(always) == pytest.approx(12, abs=1e-12)
    assert survival(1, 0.3) == pytest.approx([0.3]) and survival(1, 0.3, first_block_always=True) == [1.0]


def test_a_fallen_branch_leaves_the_shortcut_and_survivors_are_scaled() -> None:
    model = operated(StochasticDepth(p_last=0.5), [True, False, True, False])
    expected = by_hand(network(), images(), [1 / 0.875, 0, 1 / 0.625, 0])
    assert torch.allclose(model(images()), expected, rtol=0, atol=1e-12)


def test_scaling_at_test_time_is_the_papers() -> None:
    model = operated(StochasticDepth(p_last=0.5, scaling="test"), [True, False, True, False])
    assert torch.allclose(model(images()), by_hand(network(), images(), [1, 0, 1, 0]), rtol=0, atol=1e-12)
    model, plain = operated(StochasticDepth(p_last=0.5, scaling="test")).eval(), network().eval()
    assert torch.allclose(model(images()), by_hand(plain, images(), [0.875, 0.75, 0.625, 0.5]), rtol=0, atol=1e-12)


def test_a_fallen_block_updates_no_statistics_but_has_gradients() -> None:
    model = operated(StochasticDepth(), [True, False, True, True])
    model(images()).square().sum().backward()
    assert [bool(block.bn2.running_mean.any()) for block in model.blocks] == [True, False, True, True]  # type: ignore[union-attr, operator]
    assert [int(block.bn2.num_batches_tracked) for block in model.blocks] == [1, 0, 1, 1]  # type: ignore[union-attr, arg-type]
    assert all(block.downsample.running_mean.any() and block.bn2.training for block in model.blocks)  # type: ignore[union-attr, operator]
    assert all(p.grad is not None for p in model.parameters())
    assert not model.blocks[1].conv.weight.grad.any() and model.blocks[2].conv.weight.grad.any()  # type: ignore[union-attr, operator]


def test_norms_train_again_after_a_failure() -> None:
    model = operated(StochasticDepth(), [False] * 4)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 7, 5, 5, dtype=torch.float64))
    assert all(module.training for module in model.modules())


def test_frozen_norms_stay_frozen() -> None:
    model = operated(StochasticDepth(), [False] * 4)
    model.blocks[0].bn2.eval()  # type: ignore[union-attr, operator]
    model(images())
    assert not model.blocks[0].bn2.training  # type: ignore[union-attr]


def test_outside_a_tuner_nothing_falls_and_evaluation_is_untouched() -> None:
    model = operated(StochasticDepth())
    assert torch.equal(model(images()), network()(images()))
    model, plain = operated(StochasticDepth(), [False] * 4).eval(), network().eval()
    assert torch.equal(model(images()), plain(images()))


def test_sample_mode_draws_for_each_image_and_is_unbiased() -> None:
    model = operated(StochasticDepth(p_last=0.5, mode="sample"))
    kept: list[torch.Tensor] = []
    model.blocks[3].bn2.register_forward_hook(lambda module, inputs, output: kept.append(output))  # type: ignore[union-attr]
    torch.manual_seed(0)
    first = model(images(count=400))
    fallen = (kept[0] == 0).flatten(1)
    assert torch.equal(fallen.all(1), fallen.any(1)) and 0.4 < fallen.all(1).double().mean() < 0.6
    torch.manual_seed(0)
    assert torch.equal(model(images(count=400)), first) and not torch.equal(model(images(count=400)), first)
    factor = Gate(0.8, "sample", "train", training=True).factor(torch.ones(20_000, 1, 1, 1, dtype=torch.float64))
    assert isinstance(factor, torch.Tensor) and set(factor.flatten().tolist()) == {0, 1.25}
    assert factor.mean().item() == pytest.approx(1, abs=0.02)


def test_draws_of_a_step_are_equal_on_all_ranks_and_follow_survival() -> None:
    method, other = StochasticDepth(p_last=0.5), StochasticDepth(p_last=0.5)
    operated(method), operated(other)
    state, counts = torch.get_rng_state(), [0, 0, 0, 0]
    for step in range(2000):
        clock = Clock(1, 2, step, 2000, seed=3)
        assert not method.restart_(clock, None)  # type: ignore[arg-type]
        alive = method.state_dict()["alive"]
        counts = [count + one for count, one in zip(counts, alive, strict=True)]
        other.restart_(Clock(1, 2, step, 2000, micro=0, seed=3, rank=1), None)  # type: ignore[arg-type]
        assert other.state_dict() == {"alive": alive}
    assert [count / 2000 for count in counts] == pytest.approx([0.875, 0.75, 0.625, 0.5], abs=0.03)
    assert torch.equal(state, torch.get_rng_state())


def test_micro_batches_share_the_draw_of_their_step_and_resume_continues_it() -> None:
    model = network()
    tuner = Tuner(model, [StochasticDepth()], head="fc", epochs=1, steps_per_epoch=3)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01))
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    drawn = []
    for _ in range(2):
        for _ in range(2):
            drawn.append(tuner.methods[0].state_dict()["alive"])
            tuner.loss(model, images(), torch.tensor([0, 1, 2, 0]), F.cross_entropy).backward()
        tuner.gradients_()
        optimizer.step()
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and None not in drawn[0]
    other = network()
    again = Tuner(other, [StochasticDepth()], head="fc", epochs=1, steps_per_epoch=3)
    other.load_state_dict(model.state_dict())
    again.load_state_dict(tuner.state_dict())
    assert torch.equal(other(images()), model(images()))


def test_a_deep_copy_has_its_own_gates_and_norms() -> None:
    method = StochasticDepth()
    model = operated(method, [False] * 4)
    other = copy.deepcopy(model)
    method.load_state_dict({"alive": [True] * 4})
    other(images())
    assert not any(block.bn2.running_mean.any() for block in other.blocks)  # type: ignore[union-attr, operator]
    model(images())
    assert all(block.bn2.running_mean.any() for block in model.blocks)  # type: ignore[union-attr, operator]
    assert all(module.training for module in [*model.modules(), *other.modules()])


def test_compiled_and_in_bf16() -> None:
    method = StochasticDepth()
    model = operated(method).float()
    compiled = torch.compile(model, backend="eager")
    for step in range(4):
        method.restart_(Clock(0, 1, step, 4), None)  # type: ignore[arg-type]
        eager = copy.deepcopy(model)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(compiled(images().float()), eager(images().float()))
        assert all(torch.equal(value, eager.state_dict()[key]) for key, value in model.state_dict().items())


def test_p_last_1_is_no_surgery() -> None:
    method = StochasticDepth(p_last=1.0)
    model = operated(method)
    method.restart_(Clock(0, 1), None)  # type: ignore[arg-type]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()) and method.state_dict() == {
        "alive": []
    }
    StochasticDepth(p_last=1.0).surgery(Net(nn.Sequential(), (), {}), Source(nn.Sequential()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"p_last": 0}, "p_last must .*above 0 .*1, found 0"),
        ({"p_last": 1.1}, "found 1.1"),
        ({"p_last": float("nan")}, "found nan"),
        ({"p_last": True}, "found True"),
        ({"first_block_always": 1}, "first_block_always must .*True or False, found 1"),
        ({"mode": "row"}, 'mode must .*"batch" or "sample", found \'row\''),
        ({"scaling": "none"}, 'scaling must .*"train" or "test", found \'none\''),
    ],
)
def test_arguments_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"stochastic_depth: .*{words}"):
        StochasticDepth(**options)  # type: ignore[arg-type]


def test_networks_without_blocks_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="stochastic_depth: Sequential has no residual block that is known .*rekindle methods stochastic_depth.*take a residual network",
    ):
        residual_blocks(nn.Sequential(nn.Linear(2, 2)), "stochastic_depth")
