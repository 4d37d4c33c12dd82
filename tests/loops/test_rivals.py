"""What other people's loops do beside the tuner, and the tuner cannot follow, is one sentence."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)  # fmt: skip
from torch import nn

import rekindle
from rekindle.integrations.lightning import TunerCallback
from rekindle.models.cifar_resnet import CifarResNet

RIVALS: list[Any] = [
    lambda: StochasticWeightAveraging(swa_lrs=1e-3), lambda: StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1),
    BackboneFinetuning, BatchSizeFinder, LearningRateFinder, lambda: GradientAccumulationScheduler({0: 1, 1: 2}),
]  # fmt: skip


@pytest.mark.parametrize("make", RIVALS)
@pytest.mark.parametrize("first", [True, False])
def test_callbacks_of_lightning_that_contradict_the_tuner(make: Any, first: bool) -> None:
    model = CifarResNet(8, 3)
    ours, theirs = TunerCallback(rekindle.Tuner(model, [rekindle.L2SP()], epochs=2, steps_per_epoch=2)), make()
    pair = [ours, theirs] if first else [theirs, ours]
    trainer = Trainer(max_epochs=2, callbacks=pair, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match=f"{type(theirs).__name__} does not go with TunerCallback"):
        ours.setup(trainer, None, "fit")  # type: ignore[arg-type]


def loop(tuner: rekindle.Tuner, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any, act: Any = None) -> None:
    """The plain loop; `act` is called before each epoch with its number."""
    torch.manual_seed(0)
    for epoch in range(tuner.epochs):
        if act is not None:
            act(epoch)
        tuner.start_epoch(epoch)
        for _ in range(tuner.steps_per_epoch):
            tuner.loss(model, torch.randn(4, 3, 16, 16), torch.arange(4) % 3, nn.functional.cross_entropy).backward()
            tuner.gradients_()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()


def parts(model: nn.Module) -> tuple[rekindle.Tuner, torch.optim.Optimizer, Any]:
    tuner = rekindle.Tuner(model, [rekindle.L2SP()], epochs=3, steps_per_epoch=2)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01))
    return tuner, optimizer, tuner.scheduler(optimizer)


def test_a_group_added_in_training() -> None:
    model = CifarResNet(8, 3)
    model.conv1.requires_grad_(False)
    tuner, optimizer, scheduler = parts(model)

    def add(epoch: int) -> None:
        if epoch == 1:
            optimizer.add_param_group({"params": list(model.conv1.requires_grad_(True).parameters()), "lr": 0.01})

    with pytest.raises(ValueError, match="a group that is added in training"):
        loop(tuner, model, optimizer, scheduler, add)


def test_unfrozen_after_the_groups_were_made() -> None:
    model = CifarResNet(8, 3)
    model.conv1.requires_grad_(False)
    tuner, optimizer, scheduler = parts(model)
    with pytest.raises(ValueError, match="the optimiser does not hold them"):
        loop(tuner, model, optimizer, scheduler, lambda epoch: model.conv1.requires_grad_(epoch == 1))


def test_frozen_for_a_while_in_the_groups() -> None:
    model = CifarResNet(8, 3)
    tuner, optimizer, scheduler = parts(model)
    before = model.conv1.weight.detach().clone()
    loop(tuner, model, optimizer, scheduler, lambda epoch: model.conv1.requires_grad_(epoch > 0))
    assert not torch.equal(before, model.conv1.weight)


def test_a_second_run_of_one_tuner() -> None:
    model = CifarResNet(8, 3)
    tuner, optimizer, scheduler = parts(model)
    loop(tuner, model, optimizer, scheduler)
    with pytest.raises(ValueError, match="has had 3 of its 3 epochs"):
        loop(tuner, model, optimizer, scheduler)
