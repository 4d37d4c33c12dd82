"""A `Tuner` under Lightning's Trainer.

The LightningModule computes ``tuner.loss(model, x, y, criterion)`` and returns the tuner's groups and scheduler from
``configure_optimizers``; all else is the callback's::

    trainer = Trainer(max_epochs=tuner.epochs, callbacks=[TunerCallback(tuner)])

Lightning divides each micro-batch's loss by ``accumulate_grad_batches``, also in a last group that is cut short.
"""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from rekindle.errors import agree, number_of
from rekindle.method import DataPasses, PassOverData, require
from rekindle.rng import random_state, set_random_state
from rekindle.tuner import Tuner
from rekindle.tuner.scheduler import TunerScheduler

RIVALS: dict[type[Callback], str] = {
    StochasticWeightAveraging: "replaces the tuner's scheduler and adds an epoch",
    BackboneFinetuning: "adds parameter groups in training, and the tuner knows no rates for them (the methods freeze and lp_ft do the like)",
    GradientAccumulationScheduler: "changes the number of optimiser steps in training, which the tuner was built with",
    LearningRateFinder: "trains trial steps, which the tuner would count, and sets a rate that the tuner sets",
    BatchSizeFinder: "trains trial steps, which the tuner would count",
}


class TunerCallback(Callback):
    """Call the tuner at Lightning's hooks and keep its state in Lightning's checkpoints.

    Args:
        tuner: Built around the network that the LightningModule trains.
        data: For methods that look at data before training: what `Tuner.prepare` takes. It is asked when the network is on
            its device, and not again on resume.

    Raises:
        ValueError: When training starts, if another callback contradicts the tuner, the Trainer's epochs or steps differ from the tuner's, its scheduler is missing,
            optimisation is manual, parameters are split over processes, or a checkpoint lacks the tuner's state.
    """

    def __init__(self, tuner: Tuner, data: PassOverData | DataPasses | None = None) -> None:
        self.tuner, self.data = tuner, data
        self._known = False  # Whether the tuner knows what the Trainer has done so far.
        self._stored: dict[str, Any] = {}
        self._random: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The tuner's state, and that of torch's generators, which Lightning does not keep."""
        return {"tuner": self.tuner.state_dict(), "random": random_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state until the network is on its device and the scheduler's own state is loaded."""
        self._stored, self._random, self._known = state_dict["tuner"], state_dict["random"], True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check, before other callbacks act, that none of them contradicts the tuner."""
        if stage == "fit":
            _check_callbacks(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue the random stream before a loader draws the order of an epoch from it."""
        if trainer.world_size == 1 and self._random:  # The checkpoint holds the stream of one process.
            set_random_state(self._random)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that both sides mean the same run, and pass on the methods' cautions; then restore or prepare."""
        _check(trainer, pl_module, self.tuner)
        for text in self.tuner.warnings():
            rank_zero_warn(text)
        if self._stored:
            self.tuner.load_state_dict(self._stored)
        require(
            trainer.global_step == 0 or self._known, "this checkpoint was written without TunerCallback, so the run cannot go on from it."
        )
        if self.data is not None:
            self.tuner.prepare(self.data)
        middle = 0 < self._stored.get("step", 0) < self.tuner.steps_per_epoch
        self._known = True
        self._random, self._stored = self._random if middle and trainer.world_size == 1 else {}, {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the epoch."""
        self.tuner.start_epoch(trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin the epoch also where Lightning skips its start: resumed in the middle of it, or from the last step of the one before.

        In the middle of an epoch, undo what the new loader drew from the random stream.
        """
        self.tuner.start_epoch(trainer.current_epoch)
        if self._random:
            set_random_state(self._random)
            self._random = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the penalties: gradients are accumulated, reduced and unscaled, and not yet clipped."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.tuner.gradients_(1.0 if scaler is None else scaler.get_scale())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the step also if the gradient scaler left it out."""
        self.tuner.count_skipped_step()


def _check_callbacks(trainer: Trainer) -> None:
    """Refuse Lightning's callbacks that take over what the tuner plans when it is built: rates, groups, steps and epochs."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning sets it from outside the class.
        for kind, reason in RIVALS.items():
            require(
                not isinstance(callback, kind), f"{kind.__name__} does not go with TunerCallback: it {reason}; leave one of the two out."
            )


def _check(trainer: Trainer, module: LightningModule, tuner: Tuner) -> None:
    require(
        module.automatic_optimization,
        "TunerCallback needs Lightning's automatic optimisation; with your own, write the plain loop's calls in training_step.",
    )
    sharded = isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy)
    require(
        not sharded,
        f"{type(trainer.strategy).__name__} splits parameters over processes, but penalties need them whole; use strategy='ddp'.",
    )
    configs = trainer.lr_scheduler_configs
    ours = len(configs) == 1 and isinstance(configs[0].scheduler, TunerScheduler)
    require(ours, "the tuner sets the learning rate: return [optimizer], [tuner.scheduler(optimizer)] from configure_optimizers.")
    kept = configs[0].interval == "epoch" and configs[0].frequency == 1
    require(kept, f"the tuner's scheduler steps once an epoch; found interval={configs[0].interval!r}, frequency={configs[0].frequency}.")
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from outside the class.
        _check_length(trainer, tuner)


def _check_length(trainer: Trainer, tuner: Tuner) -> None:
    batches, parts = trainer.num_training_batches, trainer.accumulate_grad_batches
    steps = batches if math.isinf(batches) else math.ceil(batches / parts)
    counted = f"{number_of(batches, 'batch')}, {parts} a step, {agree(batches, 'makes')} {number_of(steps, 'optimiser step')} an epoch"
    require(steps in (math.inf, tuner.steps_per_epoch), f"{counted}, but the tuner was built with steps_per_epoch={tuner.steps_per_epoch}.")
    agreed = trainer.max_epochs == tuner.epochs
    require(
        agreed,
        f"the Trainer has max_epochs={trainer.max_epochs}, but the tuner's run has {tuner.epochs}; give Trainer(max_epochs=tuner.epochs).",
    )
