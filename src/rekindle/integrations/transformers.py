"""A `Tuner` under the Hugging Face Trainer.

::

    callback = TunerCallback(tuner, optimizer)
    trainer = Trainer(model, args, train_dataset=data, callbacks=[callback], optimizers=callback.optimizers,
                      compute_loss_func=callback.compute_loss)

Of the training arguments, ``num_train_epochs`` must be the tuner's and ``max_grad_norm`` 0, since the Trainer clips before
the penalties are added; ``TunerCallback(max_norm=...)`` clips after them. Where samples hold their position in the training
set as ``indices`` (and ``remove_unused_columns=False`` lets them pass), draws on labels follow the sample; the network never
sees them.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rekindle.errors import agree, number_of
from rekindle.method import DataPasses, PassOverData, require
from rekindle.models.structure import logits
from rekindle.tuner import Criterion, Tuner
from rekindle.tuner.scheduler import TunerScheduler

NOT_INPUTS = ("labels", "indices", "num_items_in_batch")


class TunerCallback(TrainerCallback):
    """Call the tuner at the Trainer's events and keep its state in the Trainer's checkpoints.

    Args:
        tuner: Built around the network that the Trainer trains, or a part of it.
        optimizer: Built from ``tuner.param_groups(lr=...)``; the callback makes its scheduler.
        criterion: (logits, labels) -> mean over the samples; used in training and evaluation.
        data: For methods that look at data before training: what `Tuner.prepare` takes. It is asked when the network is on
            its device, and not again on resume.
        max_norm: Norm that gradients are clipped to, penalties included; 0 does not clip.

    Attributes:
        optimizers: What the Trainer takes under that name.

    Raises:
        ValueError: When training starts, if the Trainer's arguments contradict the tuner's; each sentence says what to give.
    """

    def __init__(
        self,
        tuner: Tuner,
        optimizer: Optimizer,
        criterion: Criterion = cross_entropy,
        data: PassOverData | DataPasses | None = None,
        max_norm: float = 0.0,
    ) -> None:
        require(0 <= max_norm < float("inf"), f"max_norm must be a finite number of at least 0, found {max_norm!r}.")
        self.tuner, self.criterion, self.data, self.max_norm = tuner, criterion, data, max_norm
        self.optimizer, self.scheduler = optimizer, tuner.scheduler(optimizer)
        self.optimizers = (optimizer, TrainerScheduler(tuner, self.scheduler))
        self._seen = _Seen(tuner.net.model)
        self._parts = 1
        self._computed = False

    def compute_loss(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The Trainer's `compute_loss_func`: the tuner's loss in training, the criterion alone in evaluation.

        The Trainer leaves the division by accumulation steps to this function: each micro-batch counts by its share of the
        step's samples.

        Args:
            outputs: Logits, or an object, mapping or tuple that holds them.
            labels: (B,) classes.
            num_items_in_batch: Samples of the whole step on all processes, as the Trainer counts them; None where it does not.

        Returns:
            A scalar with its graph.
        """
        require(labels is not None, 'the batches have no "labels", which the loss needs; name the classes so, and keep that column.')
        assert labels is not None
        x, indices = self._seen.take()
        found = _logits(outputs)
        training = self.tuner.net.model.training
        if training:
            loss = self.tuner.loss_of(found, x, self.tuner.labels(labels, indices), self.criterion, indices)
            self._computed = True
        else:
            loss = self.criterion(found, labels)
        if num_items_in_batch is None:
            return loss / (self._parts if training else 1)
        return loss / (num_items_in_batch / labels.ne(-100).sum())

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Watch what the Trainer's network is given."""
        self._seen.watch(kwargs["model"])

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check that both sides mean the same run, and pass on the methods' cautions; prepare unless a checkpoint has done so."""
        _check_arguments(args)
        self._check_parts(state, **kwargs)
        _check_length(args, state, kwargs["train_dataloader"], self.tuner)
        if state.is_world_process_zero:
            for text in self.tuner.warnings():
                warnings.warn(text, stacklevel=2)
        self._seen.watch(kwargs["model"])
        self._parts = args.gradient_accumulation_steps
        if self.data is not None:
            self.tuner.prepare(self.data)

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Begin the epoch; the Trainer says so again when it resumes in the middle of one, which the tuner ignores."""
        self.tuner.start_epoch(state.global_step // self.tuner.steps_per_epoch)

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the penalties to gradients that are accumulated, reduced and unscaled; then clip."""
        require(self._computed, "give Trainer(compute_loss_func=callback.compute_loss), so that labels and outputs reach the tuner.")
        self._computed = False
        self.tuner.gradients_(_unscale_(kwargs["optimizer"]))
        if self.max_norm > 0:
            nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], self.max_norm)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the step also if the gradient scaler left it out, and give the next epoch its learning rates."""
        self.tuner.count_skipped_step()
        if state.global_step % self.tuner.steps_per_epoch == 0:
            self.scheduler.step()

    def _check_parts(self, state: TrainerState, **kwargs: Any) -> None:
        inner = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        ours = inner is self.optimizer and kwargs["lr_scheduler"] is self.optimizers[1]
        require(ours, "the tuner sets the learning rate: give Trainer(optimizers=callback.optimizers).")
        had = self.scheduler.last_epoch
        require(
            had <= state.global_step // self.tuner.steps_per_epoch,
            f"train() starts anew, but the tuner has had {had} of its {number_of(self.tuner.epochs, 'epoch')}; make the network, tuner, optimizer, "
            "callback and Trainer again, or give train(resume_from_checkpoint=True).",
        )
        known = self.scheduler.last_epoch == state.global_step // self.tuner.steps_per_epoch
        require(
            known, "this checkpoint was written without the tuner's state, or with save_only_model=True, so the run cannot go on from it."
        )


class TrainerScheduler:
    """What the Trainer takes for a learning-rate scheduler: it steps that every optimiser step, while the tuner sets the rates.

    The Trainer saves and loads a scheduler's state wherever a checkpoint lies, so the tuner's state travels with it.
    """

    def __init__(self, tuner: Tuner, scheduler: TunerScheduler) -> None:
        self._tuner, self._scheduler = tuner, scheduler

    def step(self) -> None:
        """Nothing: rates inside an epoch follow the optimiser, those of the next one the callback."""

    def get_last_lr(self) -> list[float]:
        """Rates at present, for logs.

        Returns:
            One rate a parameter group.
        """
        return [float(group["lr"]) for group in self._scheduler.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's and the tuner's, on the CPU."""
        state: dict[str, Any] = _on_cpu({"scheduler": self._scheduler.state_dict(), "tuner": self._tuner.state_dict()})
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""
        require("tuner" in state, "this checkpoint was written without a tuner, so the run cannot go on from it.")
        self._scheduler.load_state_dict(state["scheduler"])
        self._tuner.load_state_dict(state["tuner"])


class _Seen:
    """A forward pre-hook that keeps what a network is given, and takes away `indices`, which networks do not know."""

    def __init__(self, model: nn.Module) -> None:
        self._watched: set[int] = set()
        self._outermost = model
        self._x: Tensor | None = None
        self._indices: Tensor | None = None
        self.watch(model)

    def watch(self, model: nn.Module) -> None:
        """Hook a module, once, that holds those hooked before."""
        self._outermost = model
        if id(model) not in self._watched:
            self._watched.add(id(model))
            model.register_forward_pre_hook(self, with_kwargs=True)

    def take(self) -> tuple[Tensor, Tensor | None]:
        """Inputs and indices of the last forward pass."""
        x, indices = self._x, self._indices
        self._x = self._indices = None
        assert x is not None
        return x, indices

    def __call__(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if module is self._outermost:
            self._indices = named.get("indices")
        first = named.get(getattr(module, "main_input_name", ""))
        tensors = [*given, *(value for name, value in named.items() if name not in NOT_INPUTS)]
        self._x = next(value for value in [first, *tensors] if isinstance(value, Tensor))
        return given, {name: value for name, value in named.items() if name != "indices"}


def _logits(outputs: Any) -> Tensor:
    """Also out of the tuples and mappings that the Trainer's networks may return."""
    if isinstance(outputs, Mapping) and "logits" in outputs:
        outputs = outputs["logits"]
    return logits(outputs[0] if isinstance(outputs, tuple) else outputs)


def _unscale_(optimizer: Any) -> float:
    """Free the gradients of the loss scale, under fp16; the scale, or 1."""
    scaler = getattr(optimizer, "scaler", None)
    if scaler is None:
        return 1.0
    try:
        scaler.unscale_(optimizer.optimizer)
    except RuntimeError:  # The Trainer has done so already, to log the gradient's norm.
        pass
    return float(scaler.get_scale())


def _on_cpu(value: Any) -> Any:
    """Tensors in any nesting of dicts and lists, moved and detached."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list | tuple) else value


def _check_arguments(args: TrainingArguments) -> None:
    clipped = args.max_grad_norm or 0
    require(
        clipped == 0,
        f"max_grad_norm={clipped:g} would clip before the penalties are added; give max_grad_norm=0 and TunerCallback(max_norm={clipped:g}).",
    )
    smoothed = args.label_smoothing_factor
    require(smoothed == 0, f"label_smoothing_factor={smoothed:g} would be ignored; give TunerCallback a criterion that smooths labels.")
    require(
        not (args.fsdp or args.deepspeed),
        "fsdp and deepspeed split parameters over processes, but penalties need them whole; leave them out.",
    )
    require(
        args.n_gpu <= 1,
        f"one process for {args.n_gpu} GPUs copies the network; start one for each with torchrun, or set CUDA_VISIBLE_DEVICES to one.",
    )


def _check_length(args: TrainingArguments, state: TrainerState, loader: Any, tuner: Tuner) -> None:
    if hasattr(loader, "__len__"):
        batches, parts = len(loader), args.gradient_accumulation_steps
        steps = math.ceil(batches / parts)
        counted = f"{number_of(batches, 'batch')}, {parts} a step, {agree(batches, 'makes')} {number_of(steps, 'optimiser step')} an epoch"
        require(steps == tuner.steps_per_epoch, f"{counted}, but the tuner was built with steps_per_epoch={tuner.steps_per_epoch}.")
    total = tuner.epochs * tuner.steps_per_epoch
    advice = f"give num_train_epochs={tuner.epochs}, the tuner's, and leave max_steps out"
    require(
        state.max_steps == total,
        f"this run has {number_of(state.max_steps, 'optimiser step')}, but the tuner was built for {total}; {advice}.",
    )
