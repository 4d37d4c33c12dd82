"""What happens to a network around the tuner: a gradient scaler leaves steps out, a framework moves it to another device."""

import pytest
import torch
from torch import nn

from rekindle import L2SP, Rifle
from rekindle.registry import methods
from rekindle.testing.network import Loop, data, hybrid
from tests.toys import run_epochs, toy, toy_batch, toy_tuner

CE = nn.functional.cross_entropy


def scaled(scale: float, factor: float = 1.0) -> tuple[dict[str, torch.Tensor], float]:
    """Weights after a loop with a scaler on a loss times `factor`, and the scale at its end."""
    made = [L2SP(alpha=0.1), Rifle(periods=2, unit="step")]
    model, tuner, optimizer = toy_tuner(made, toy(), epochs=4)
    scheduler = tuner.scheduler(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for epoch in range(4):
        tuner.start_epoch(epoch)
        for step in range(3):
            loss = tuner.loss(model, *toy_batch(1000 * epoch + step), lambda z, y: factor * CE(z, y))
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            tuner.gradients_(scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        scheduler.step()
    return model.state_dict(), scaler.get_scale()


def test_a_scaler_changes_nothing() -> None:
    model, tuner, optimizer = toy_tuner([L2SP(alpha=0.1), Rifle(periods=2, unit="step")], toy(), epochs=4)
    run_epochs(model, tuner, optimizer, tuner.scheduler(optimizer), range(4))
    found, _ = scaled(1024.0)
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


def test_steps_that_a_scaler_leaves_out_are_counted() -> None:
    """The first steps overflow, so an epoch ends and the next begins with a step left out."""
    found, scale = scaled(2.0**127, factor=16)
    assert scale < 2.0**125, "the first steps were to overflow"
    assert all(torch.isfinite(value).all() for value in found.values())


def test_a_forgotten_step_is_not_taken_for_one_left_out() -> None:
    model, tuner, optimizer = toy_tuner([L2SP()])
    scheduler = tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    for step in range(3):
        tuner.loss(model, *toy_batch(step), CE).backward()
        tuner.gradients_()
    scheduler.step()
    with pytest.raises(ValueError, match="made 0 optimiser steps"):
        tuner.start_epoch(1)


@pytest.mark.parametrize("name", list(methods()))
def test_methods_attach_anew_after_a_move(name: str) -> None:
    """No second device here: the tuner is made to believe in one, and what it was told by a checkpoint must survive."""

    def trained(moved: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        kind = methods()[name]
        loop, elder = Loop([kind(**kind.example)], epochs=2), Loop([kind(**kind.example)], hybrid(seed=9), epochs=2)
        for each in (loop, elder):
            each.tuner.prepare(data())
        loop.tuner.load_state_dict({**loop.tuner.state_dict(), "methods": elder.tuner.state_dict()["methods"]})
        if moved:
            loop.tuner._device = torch.device("meta")
        return loop.run()

    still, gone = trained(False), trained(True)
    assert all(torch.equal(value, gone[key]) for key, value in still.items())
