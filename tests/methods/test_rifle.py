"""RIFLE against the numbers of its paper and its authors' code (labels R1 to R7)."""

import math

import pytest
import torch
from torch import nn

import rekindle
from rekindle import Rifle, Tuner
from rekindle.method import Clock
from rekindle.methods.restarts._draw import reinitialize_
from rekindle.methods.restarts._periods import cycle_factor, period_starts
from tests.toys import Toy, run_epochs, toy, toy_tuner


def rates(tuner: Tuner, group: str) -> list[float]:
    return [0.01 * tuner.lr_factor(group, epoch) for epoch in range(tuner.epochs)]


def test_r1_rates_and_resets() -> None:
    _, tuner, _ = toy_tuner([Rifle(periods=2)])
    half = [0.01, 0.00853553390593, 0.005, 0.00146446609407]
    assert rates(tuner, "head") == pytest.approx(half * 2, abs=1e-13)
    assert rates(tuner, "backbone") == pytest.approx(
        [0.01, 0.00961939766256, 0.00853553390593, 0.00691341716183, 0.005, 0.00308658283817, 0.00146446609407, 0.000380602337444],
        abs=1e-13,
    )
    assert period_starts(8, 2) == [0, 4]
    assert [0.01 * cycle_factor(t, 4, [0], 4, "full") for t in range(4)] == pytest.approx([0.01, 0.005, 0, 0.005], abs=1e-15)


@pytest.mark.parametrize(
    ("periods", "epochs", "after"),
    [
        (2, 40, [19]),
        (3, 39, [12, 25]),
        (4, 40, [9, 19, 29]),
        (5, 40, [7, 15, 23, 31]),
        (6, 36, [5, 11, 17, 23, 29]),
        (7, 35, [4, 9, 14, 19, 24, 29]),
    ],
)
def test_r2_paper_code_trims_and_resets(periods: int, epochs: int, after: list[int]) -> None:
    model, tuner, optimizer = toy_tuner([Rifle(periods=periods, preset="paper_code")], epochs=40, steps=1)
    assert tuner.epochs == epochs
    scheduler = tuner.scheduler(optimizer)
    drawn = []
    for epoch in range(tuner.epochs):
        before = model.fc.weight.clone()  # type: ignore[union-attr]
        tuner.start_epoch(epoch)
        if not torch.equal(before, model.fc.weight):  # type: ignore[union-attr, arg-type]
            drawn.append(epoch - 1)
        run_epochs(model, tuner, optimizer, scheduler, range(epoch, epoch + 1))
    assert drawn == after


@pytest.mark.parametrize(("steps", "period", "at"), [(10, 4, [4, 8]), (12, 4, [4, 8]), (13, 4, [4, 8, 12]), (7, 3, [3, 6])])
def test_r2_algorithm_1_as_printed(steps: int, period: int, at: list[int]) -> None:
    """For t = 1..T: at t mod P = 0 a draw (never at T, whose iterate is not returned), and the rate at t before the step."""
    rifle = Rifle(period=period, preset="algorithm1")
    for per_epoch in {1, 2 - steps % 2}:  # Not longer, or the last draw would leave less than an epoch.
        clocks = [Clock(step // per_epoch, steps // per_epoch, step % per_epoch, per_epoch) for step in range(steps)]
        assert [step + 1 for step in rifle.restarts(clocks[0])] == at
        printed = [0.5 * math.cos(2 * math.pi * (t % period) / period) + 0.5 for t in range(1, steps + 1)]
        for group in ("backbone", "head"):
            assert [rifle.lr_factor(group, clock) for clock in clocks] == pytest.approx(printed, abs=1e-15)
    assert printed[:4] == pytest.approx([0.5, 0, 0.5, 1] if period == 4 else [0.25, 0.25, 1, 0.25], abs=1e-15)


def test_r2_algorithm_1_draws_before_the_step_whose_number_is_p() -> None:
    model, tuner, optimizer = toy_tuner([Rifle(period=4, preset="algorithm1")], epochs=3, steps=4)
    scheduler = tuner.scheduler(optimizer)
    drawn = []
    draw = tuner.methods[0].restart_
    tuner.methods[0].restart_ = lambda clock, opt: drawn.append((clock.global_step + 1, draw(clock, opt))) or drawn[-1][1]  # type: ignore[func-returns-value, method-assign]
    run_epochs(model, tuner, optimizer, scheduler, range(3))
    assert [t for t, fresh in drawn if fresh] == [4, 8] and [t for t, _ in drawn] == list(range(1, 13))


def test_algorithm_1_in_periods_and_its_tail() -> None:
    """K = 3 of 10 steps: P = 3, the last period takes the remainder; steps from the draw on count as left to train."""
    clock = Clock(0, 5, 0, 2)
    assert Rifle(periods=3, preset="algorithm1").restarts(clock) == [2, 5]
    assert Rifle(periods=3, preset="algorithm1", min_tail_epochs=3).restarts(clock) == [2]
    rifle = Rifle(periods=3, preset="algorithm1")
    factors = [rifle.lr_factor("head", Clock(step // 2, 5, step % 2, 2)) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.25, 1, 0.25, 0.25, 1, 0.5, 0, 0.5, 1], abs=1e-15)


def test_r2_the_last_rate() -> None:
    _, tuner, _ = toy_tuner([Rifle(periods=2)], epochs=40)
    assert rates(tuner, "backbone")[-1] == pytest.approx(1.541333133e-5, rel=1e-9)


def test_last_period_takes_the_remainder_and_its_cycle_is_stretched() -> None:
    starts = period_starts(11, 3)
    assert starts == [0, 3, 6]
    expected = [1.0, 0.5 * (1 + math.cos(math.pi * 0.4)), 0.5 * (1 + math.cos(math.pi * 0.8))]
    assert [cycle_factor(e, 11, starts) for e in (6, 8, 10)] == pytest.approx(expected)


def test_min_tail_skips_late_resets() -> None:
    assert Rifle(periods=6, min_tail_epochs=11).restarts(Clock(0, 40)) == [6, 12, 18, 24]
    assert Rifle(periods=8, min_tail_epochs=3).restarts(Clock(0, 8)) == [1, 2, 3, 4, 5]
    assert Rifle(periods=4, min_tail_epochs=3, unit="step").restarts(Clock(0, 8, 0, 5)) == [10, 20]


def test_r3_default_initialisation() -> None:
    layer = nn.Linear(2048, 200)
    with torch.no_grad():
        layer.weight.fill_(9.0)
    reinitialize_([layer], torch.Generator().manual_seed(1))
    bound = 1 / math.sqrt(2048)
    assert bound == pytest.approx(0.022097086912, abs=1e-12)
    assert 0.999 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert float(layer.weight.detach().std()) == pytest.approx(0.012757759077, rel=0.01)


@pytest.mark.parametrize(("state", "step"), [("keep", -0.0046), ("clear", -0.001)])
def test_r4_momentum(state: str, step: float) -> None:
    model = toy()
    _, tuner, optimizer = toy_tuner([Rifle(periods=2, optimizer_state=state, cycle="none")], model, epochs=2, steps=1, schedule=Constant())  # type: ignore[arg-type]
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, scheduler, range(1))
    bias = model.fc.bias
    optimizer.state[bias]["momentum_buffer"] = torch.full_like(bias, 0.4)
    tuner.start_epoch(1)
    before = bias.detach().clone()
    bias.grad = torch.full_like(bias, 0.1)
    tuner.gradients_()
    optimizer.step()
    assert (bias.detach() - before).tolist() == pytest.approx([step] * 3, abs=1e-7)


class Constant(Rifle):
    """A flat learning rate, for closed forms."""

    def lr_factor(self, group: str, clock: Clock) -> float:
        return 1.0


@pytest.mark.parametrize(("kept", "ratio"), [(True, 3.16069), (False, 1.0)])
def test_r5_adam_overshoots_with_kept_state(kept: bool, ratio: float) -> None:
    parameter = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = torch.optim.Adam([parameter], lr=1.0)
    if kept:
        optimizer.state[parameter] = {
            "step": torch.tensor(1e6),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.full_like(parameter, 1e-8),
        }
    parameter.grad = torch.tensor(0.1, dtype=torch.float64)
    optimizer.step()
    assert abs(parameter.item()) == pytest.approx(ratio, rel=1e-5)


def test_r6_why_it_works() -> None:
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    for v, expected in ((2.0, 0.0), (0.5, -0.75)):
        loss = 0.5 * (v * w * 1.0 - 2.0) ** 2
        assert torch.autograd.grad(loss, w)[0].item() == expected


def test_r7_a_reset_touches_the_head_alone() -> None:
    model = toy(norm=True)
    _, tuner, optimizer = toy_tuner([Rifle(periods=2)], model, epochs=4)
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, scheduler, range(2))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    momenta = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.body.named_parameters()}
    generator_state = torch.get_rng_state()
    assert tuner.start_epoch(2)
    assert torch.equal(generator_state, torch.get_rng_state())
    for key, value in model.state_dict().items():
        assert torch.equal(before[key], value) != key.startswith("fc."), key
    assert pointers == {name: p.data_ptr() for name, p in model.named_parameters()}
    for name, p in model.body.named_parameters():
        assert torch.equal(momenta[name], optimizer.state[p]["momentum_buffer"])
    assert all(not optimizer.state.get(p) for p in model.fc.parameters())


def test_r7_steps_and_epochs_agree() -> None:
    runs = []
    for unit in ("epoch", "step"):
        model, tuner, optimizer = toy_tuner([Rifle(periods=4, unit=unit, cycle="none")])  # type: ignore[arg-type]
        run_epochs(model, tuner, optimizer, tuner.scheduler(optimizer), range(8))
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


def test_training_goes_on_after_a_reset_and_ends_without_one() -> None:
    model, tuner, optimizer = toy_tuner([Rifle(periods=4)])
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, scheduler, range(7))
    head = model.fc.weight.detach().clone()  # type: ignore[union-attr]
    assert not tuner.start_epoch(7)
    assert torch.equal(head, model.fc.weight)  # type: ignore[union-attr, arg-type]


def test_the_scale_of_a_draw_follows_normalisation() -> None:
    """The same numbers, smaller; biases and BatchNorm as ever."""

    def drawn(method: Rifle, norm: bool) -> nn.Linear:
        model = toy(norm=norm)
        _, tuner, optimizer = toy_tuner([method], model, epochs=4)
        run_epochs(model, tuner, optimizer, tuner.scheduler(optimizer), range(2))
        assert tuner.start_epoch(2)
        return model.fc  # type: ignore[return-value]

    full = drawn(Rifle(scale=1.0), False)
    for method, norm, scale in (
        (Rifle(), False, 0.1),
        (Rifle(), True, 1.0),
        (Rifle(scale=0.5), True, 0.5),
        (Rifle(preset="paper_code"), False, 1.0),
    ):
        found = drawn(method, norm)
        torch.testing.assert_close(found.weight, scale * full.weight, rtol=1e-6, atol=0)
        assert torch.equal(found.bias, full.bias)
    head = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    reinitialize_([head], torch.Generator().manual_seed(0), 0.1)
    assert head[1].weight.tolist() == [1.0] * 4


def test_too_few_steps_after_the_last_draw_are_said() -> None:
    """40 epochs of 4 steps leave 80 after the draw of two periods, of 3 steps 60."""

    def warnings(method: Rifle, steps: int) -> list[str]:
        return Tuner(toy(), [method], epochs=40, steps_per_epoch=steps).warnings()

    assert warnings(Rifle(periods=2), 4) == []
    for method in (Rifle(periods=2), Rifle(periods=2, unit="step")):
        [said] = warnings(method, 3)
        assert said.startswith("rifle: the head has 60 steps after its last fresh draw")
    assert "has 30 steps" in warnings(Rifle(periods=4), 3)[0]
    # Who draws no head has nothing to train anew.
    assert warnings(Rifle(reinitialize=False), 1) == warnings(Rifle(periods=1), 1) == []


@pytest.mark.parametrize(("head_type", "said"), [("own", ["rifle: the network ends in a ReLU on its logits"]), ("linear", [])])
def test_a_relu_on_the_logits_is_said(head_type: str, said: list[str]) -> None:
    _, model = rekindle.load("torchvision:squeezenet1_1", classes=3, weights="none", head_type=head_type)
    tuner = Tuner(model, [Rifle(periods=2)], epochs=40, steps_per_epoch=100)
    assert [text.partition(",")[0] for text in tuner.warnings()] == said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"periods": 0}, "periods must .*1 and .*, found 0"),
        ({"periods": 2.5}, "found 2.5"),
        ({"unit": "batch"}, 'unit must .*"epoch" or "step", found \'batch\''),
        ({"shape": "third"}, 'shape must .*"half" or "full", found'),
        ({"cycle": "tail"}, 'cycle must .*"head" or "all" or "none", found'),
        ({"scale": 0.0}, "scale must .*above 0 .*found 0.0"),
        ({"optimizer_state": "drop"}, 'optimizer_state must .*"clear" or "keep", found'),
        ({"min_tail_epochs": 0}, "min_tail_epochs must .*1 and .*, found 0"),
        ({"period": -1}, "period must .*1, or 0 .*periods, found -1"),
        ({"trim": True, "unit": "step"}, "trim .*unit='step'"),
        ({"preset": ["paper_code"]}, "preset must .*found"),
        ({"preset": "paper"}, 'preset must .*"paper_code" or "algorithm1" .*found \'paper\''),
    ],
)
def test_bad_arguments_name_the_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=f"rifle: .*{words}"):
        Rifle(**options)  # type: ignore[arg-type]


def test_heads_that_cannot_be_drawn_anew_are_refused() -> None:
    frozen = toy()
    frozen.fc.requires_grad_(False)
    tied = Toy()
    tied.body[0] = nn.Linear(4, 4)
    tied.fc = nn.Linear(4, 4)
    tied.fc.weight = tied.body[0].weight
    bare = toy()
    bare.fc.extra = nn.Parameter(torch.zeros(1))
    bare.fc = nn.ModuleDict({"a": bare.fc, "b": _Bare()})  # type: ignore[assignment]
    empty = toy()
    empty.fc = nn.Identity()  # type: ignore[assignment]
    for model, words in (
        (frozen, "is frozen"),
        (tied, "tied to the backbone"),
        (bare, "no reset_parameters() covers"),
        (empty, "no parameters"),
    ):
        with pytest.raises(ValueError, match=words.replace("(", r"\(").replace(")", r"\)")):
            toy_tuner([Rifle(periods=2)], model)
    with pytest.raises(ValueError, match="at most the 8 epochs of the run, found 9"):
        toy_tuner([Rifle(periods=9)])


class _Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
