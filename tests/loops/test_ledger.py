"""A forgotten call raises at the first step and names the line to add; a second call for one epoch changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rekindle import L2, L2SP, Batch, Clock, DataPasses, Direction, Method, Net, Rifle, Source, Tuner
from tests.toys import run_epochs, toy, toy_batch, toy_tuner

CE = nn.functional.cross_entropy


def test_start_epoch_forgotten() -> None:
    model, tuner, optimizer = toy_tuner([L2()])
    tuner.scheduler(optimizer)
    with pytest.raises(ValueError, match=r"add tuner.start_epoch\(epoch\)"):
        tuner.loss(model, *toy_batch(0), CE)
    CE(model(toy_batch(0)[0]), toy_batch(0)[1]).backward()
    with pytest.raises(ValueError, match=r"add tuner.start_epoch\(epoch\)"):
        tuner.gradients_()
    with pytest.raises(ValueError, match=r"add tuner.start_epoch\(epoch\)"):
        optimizer.step()


def test_scheduler_forgotten() -> None:
    _, tuner, _ = toy_tuner([L2()])
    with pytest.raises(ValueError, match=r"add scheduler = tuner.scheduler\(optimizer\)"):
        tuner.start_epoch(0)


def test_gradients_forgotten() -> None:
    model, tuner, optimizer = toy_tuner([L2()])
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    tuner.loss(model, *toy_batch(0), CE).backward()
    with pytest.raises(ValueError, match=r"add tuner.gradients_\(\) between backward\(\) and optimizer.step\(\)"):
        optimizer.step()


def test_scheduler_step_forgotten() -> None:
    model, tuner, optimizer = toy_tuner([L2()], steps=1)
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, _Idle(), range(1))
    with pytest.raises(ValueError, match=r"add scheduler.step\(\) at the end of each epoch"):
        tuner.start_epoch(1)
    scheduler.step()
    tuner.start_epoch(1)


def test_loss_forgotten_where_a_method_needs_it() -> None:
    model, tuner, optimizer = toy_tuner([Relabel()])
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    x, y = toy_batch(0)
    CE(model(x), y).backward()
    with pytest.raises(ValueError, match=r"use tuner.loss\(model, x, y, criterion\)"):
        tuner.gradients_()


def test_prepare_forgotten() -> None:
    _, tuner, optimizer = toy_tuner([Preparing()])
    tuner.scheduler(optimizer)
    with pytest.raises(ValueError, match=r"add tuner.prepare\(pass_over_data\)"):
        tuner.start_epoch(0)
    tuner.prepare(lambda: iter([toy_batch(0)]))
    tuner.start_epoch(0)


@pytest.mark.parametrize("made", [2, 4])
def test_wrong_number_of_steps(made: int) -> None:
    model, tuner, optimizer = toy_tuner([L2()], steps=3)
    scheduler = tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    with pytest.raises(ValueError, match="steps_per_epoch=3"):
        for step in range(made):
            tuner.loss(model, *toy_batch(step), CE).backward()
            tuner.gradients_()
            optimizer.step()
        scheduler.step()
        tuner.start_epoch(1)


def test_start_epoch_is_idempotent() -> None:
    model, tuner, optimizer = toy_tuner([Rifle(periods=2)], epochs=2)
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, scheduler, range(1))
    assert tuner.start_epoch(1)
    head = model.fc.weight.detach().clone()  # type: ignore[union-attr]
    assert tuner.start_epoch(1)
    assert torch.equal(head, model.fc.weight)  # type: ignore[arg-type, union-attr]


def test_weight_decay_beside_a_penalty_is_refused() -> None:
    _, tuner, _ = toy_tuner([L2SP()])
    groups = [{**group, "weight_decay": 1e-4} for group in tuner.param_groups(0.01)]
    with pytest.raises(ValueError, match="weight_decay=0"):
        tuner.scheduler(torch.optim.SGD(groups))
    with pytest.raises(ValueError, match="its groups have names"):
        tuner.scheduler(torch.optim.SGD(toy().parameters(), lr=0.1))


def test_two_owners_of_a_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="both set the learning rate of the head"):
        toy_tuner([Rifle(periods=2), Rifle(periods=4)])


@pytest.mark.parametrize("at", [(0, 1), (2, 0), (3, 2)])
def test_resume_is_exact_and_keeps_the_anchors(at: tuple[int, int]) -> None:
    def fresh() -> tuple[nn.Module, Tuner, torch.optim.SGD]:
        return toy_tuner([L2SP(alpha=0.1), Rifle(periods=2)], toy(norm=True), epochs=4)

    whole, tuner, optimizer = fresh()
    run_epochs(whole, tuner, optimizer, tuner.scheduler(optimizer), range(4))
    model, tuner, optimizer = fresh()
    scheduler = tuner.scheduler(optimizer)
    run_epochs(model, tuner, optimizer, scheduler, range(4), stop=at)
    saved = [part.state_dict() for part in (model, optimizer, scheduler, tuner)]
    other, tuner2, optimizer2 = toy_tuner([L2SP(alpha=0.1), Rifle(periods=2)], _moved(), epochs=4)
    scheduler2 = tuner2.scheduler(optimizer2)
    for part, state in zip((other, optimizer2, scheduler2, tuner2), saved, strict=True):
        part.load_state_dict(state)
    run_epochs(other, tuner2, optimizer2, scheduler2, range(at[0], 4))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def _moved() -> nn.Module:
    """A network that is no longer the pre-trained one: anchors taken from it would be wrong."""
    return toy(seed=9, norm=True)


def test_accumulation_adds_the_penalty_once() -> None:
    results = []
    for parts in (1, 3):
        model, tuner, optimizer = toy_tuner([L2SP(alpha=0.5)], toy().double(), epochs=2, steps=2)
        scheduler = tuner.scheduler(optimizer)
        for epoch in range(2):
            tuner.start_epoch(epoch)
            for step in range(2):
                x, y = toy_batch(10 * epoch + step)
                for px, py in zip(x.double().chunk(parts), y.chunk(parts), strict=True):
                    (tuner.loss(model, px, py, CE) / parts).backward()
                tuner.gradients_()
                optimizer.step()
                optimizer.zero_grad()
            scheduler.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(results[0], results[1], rtol=0, atol=1e-14)


def test_every_verb_is_called() -> None:
    relabel = Relabel()
    model, tuner, optimizer = toy_tuner([relabel], epochs=1, steps=1)
    scheduler = tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    x, y = toy_batch(0)
    loss = tuner.loss(model, x, y, CE)
    expected = 0.5 * CE(model(x), torch.zeros_like(y)) + model.body(x).square().mean()  # type: ignore[operator]
    assert torch.equal(loss, expected)
    loss.backward()
    tuner.gradients_()
    optimizer.step()
    scheduler.step()
    assert relabel.rates == {"backbone": 0.01, "head": 0.01}


def test_a_direction_scales_the_shared_part_alone() -> None:
    model, tuner, optimizer = toy_tuner([L2(alpha=1.0)], toy().double(), direction=Halve())
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    x, y = toy_batch(0)
    tuner.loss(model, x.double(), y, CE).backward()
    g = {name: p.grad.clone() for name, p in model.named_parameters()}  # type: ignore[union-attr]
    tuner.gradients_()
    for name, p in model.named_parameters():
        scale, factor = (1.0, 1.0) if name.startswith("fc") else (0.5, 2.0)
        assert torch.allclose(p.grad, scale * g[name] + factor * p.detach(), rtol=0, atol=1e-15), name  # type: ignore[arg-type]


class _Idle:
    def step(self) -> None:
        """A scheduler step that somebody forgot."""


class Relabel(Method):
    """Every label 0, half the task's loss, a penalty on an activation; remembers the rates it was told."""

    hook_layers = ("body",)

    def labels(self, labels: Tensor, indices: Tensor | None, clock: Clock) -> Tensor:
        return torch.zeros_like(labels)

    def penalty(self, batch: Batch) -> Tensor:
        return batch.activations["body"].square().mean()

    def task_weight(self) -> float:
        return 0.5

    def attach(self, net: Net, source: Source) -> None:
        self.first = {name: next(iter(members.values())) for name, members in (("backbone", net.shared()), ("head", net.new()))}

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        self.rates = {name: lr(parameter) for name, parameter in self.first.items()}


class Preparing(Method):
    """Needs a pass over data."""

    def prepare(self, data: DataPasses) -> None:
        self.seen = sum(len(y) for _, y in data.target())


class Halve(Direction):
    """(1/2, 2), whatever the products."""

    weight_decay = "inside"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        return 0.5, 2.0
