"""The training loop, on Lightning Fabric: batches in, weights and one record an epoch out.

It knows no method: the `Tuner` calls them. It can stop after any step and continue to the same bits, since batch order and
augmentation depend on (seed, epoch, sample) alone and all else is in the checkpoint.
"""

import math
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.analysis import mean_nll
from rekindle.analysis.recorders import Recorder
from rekindle.data import balanced_order, order, shard, split_batches
from rekindle.data.prefetch import prefetch
from rekindle.data.samples import Samples
from rekindle.errors import Diverged, Stopped, UserError, number_of, some
from rekindle.method import noop
from rekindle.models.weights import misfits
from rekindle.records import DECISIVE, current_names, package_versions
from rekindle.rng import random_state, set_random_state
from rekindle.training.averaging import Average
from rekindle.training.checkpoints import Unfit, is_finite, newest_finite, save_state, unfit
from rekindle.training.criterion import CrossEntropy
from rekindle.training.epoch_mean import EpochMean, first_averaged
from rekindle.training.fabric import Fabric
from rekindle.training.frozen import FrozenPart, Run, Stored
from rekindle.training.listener import Listener
from rekindle.training.mixing import differing_norms, first_views, reestimate_
from rekindle.tuner import Tuner

EVAL_BATCH = 64
SPARSELY = 20  # Saving takes a twentieth of a run at the most.
READING, AGREEING = 0.1, 10  # Seconds between looks at a GPU's numbers, and steps between questions whether to stop.
STATE = {
    "model": dict, "optimizer": dict, "scheduler": dict, "tuner": dict, "ranks": list, "skip": int, "seconds": float, "history": list,
    "recorders": dict, "best": dict,
}  # fmt: skip
LOSSES = {"train": "the loss", "val": "the validation loss", "watched_test": "the test loss"}  # Of an epoch's record.
VIEWS = "views of training pictures"
GROUPS = {"val": "validation pictures", "watched_test": "test pictures"}  # Of what the frozen part gives; see `FrozenPart`.
MEASURING = {"val": "measuring validation", "watched_test": "measuring test"}
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP.


@dataclass
class Meter:
    """Sums of loss, hits and images over an epoch: plain numbers, or tensors on a device that need not be waited for."""

    loss: float | Tensor = 0.0
    hits: int | Tensor = 0
    count: int = 0

    def add(self, loss: float | Tensor, hits: int | Tensor, count: int) -> None:
        """Add a batch: `loss` is its mean."""
        self.loss, self.hits, self.count = self.loss + loss * count, self.hits + hits, self.count + count

    def numbers(self) -> tuple[float, int, int]:
        """The sums as plain numbers, once the device has come so far.

        Returns:
            (sum of losses, pictures that are right, pictures).
        """
        self.loss, self.hits = float(self.loss), int(self.hits)
        return self.loss, self.hits, self.count

    def means(self) -> dict[str, float]:
        """Mean loss and accuracy.

        Returns:
            {"loss": nats, "accuracy": from 0 to 1}.
        """
        loss, hits, count = self.numbers()
        return {"loss": loss / count, "accuracy": hits / count}


@dataclass(kw_only=True)
class Training:
    """All that a training run consists of; `fit` runs it.

    Attributes:
        fabric: Launched.
        model: The bare network, on the device.
        tuner: Its methods.
        optimizer: Bare, built from the tuner's groups.
        criterion: The task's loss.
        train: Training samples.
        val: Validation samples, or None.
        batch_size: Images a step over all ranks and micro-batches.
        seed: Key of order and augmentation.
        folder: Where checkpoints go.
        keep: "best" keeps the weights of the best epoch on validation, "average" the mean over the last quarter of the epochs (see
            `rekindle.training.epoch_mean`; of a run that ends before, those of the last), any other word those of the last.
        listener: Who watches.
        grad_accum_steps: Micro-batches a step.
        recorders: What else is written down every epoch, by name.
        watched: Test samples to measure after every epoch, or None; they choose nothing.
        balanced: Draw every class equally often; see `rekindle.data.balanced_order`.
        patience: Stop when validation accuracy has not risen for so many epochs; None trains all.
        clip_norm: Norm that the gradient of all weights, penalties included, is clipped to; None leaves it.
        ema: Decay of the weights' moving average, which is then what is measured and kept; None keeps the weights themselves.
        choices: What the run chose by itself, as plain values; checkpoints hold it.
        history: One record an epoch.
        best: Epoch, accuracy and weights of the best epoch so far; empty before there is one.
        resumed: Whether it goes on from a checkpoint.
    """

    fabric: Fabric
    model: nn.Module
    tuner: Tuner
    optimizer: torch.optim.Optimizer
    criterion: CrossEntropy
    train: Samples
    val: Samples | None
    batch_size: int
    seed: int
    folder: Path
    keep: str
    listener: Listener
    grad_accum_steps: int = 1
    recorders: dict[str, Recorder] = field(default_factory=dict)
    watched: Samples | None = None
    balanced: bool = False
    patience: int | None = None
    clip_norm: float | None = None
    ema: float | None = None
    choices: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    resumed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.scheduler = self.tuner.scheduler(self.optimizer)
        self._module, self._wrapped_optimizer = self.fabric.setup(self.model, self.optimizer)
        self._frozen = FrozenPart(self._module, self.model, self.fabric.device, self.listener.note)
        self._run: Run = self._module
        self._average = None if self.ema is None else Average(self.model, self.ema)
        self._mean = EpochMean() if self.keep == "average" else None
        self._meter, self._skip, self._seconds, self._waited = Meter(), 0, 0.0, 0.0
        self._waits, self._read = self.fabric.device.type == "cpu", 0.0
        self._saved = self._saving = 0.0
        # What is not finite from the start is meant so, such as a mask of -inf, or shows in the first loss.
        self._watched_weights = [
            name for name, value in self.model.state_dict().items() if value.is_floating_point() and bool(value.isfinite().all())
        ]

    def fit(self) -> list[dict[str, Any]]:
        """Train to the end, from the start or from where `load` put it, and leave the kept weights in the model.

        Returns:
            One record an epoch, as metrics.jsonl holds them.

        Raises:
            Diverged: When a loss, the network's outputs on the validation or test split, or its weights are not finite. The newest
                checkpoint is then one before it.
            Stopped: After Ctrl-C or a termination signal, with the state saved.
        """
        for record in self.history[-1:]:  # Of rekindle 0.1.0, which went on.
            self._check_epoch(record)
        if not self.resumed and self.keep == "best" and self.val is not None and self.choices.get("head_init") == "linear_probe":
            start = self._measure("val", self.val)
            self.check(LOSSES["val"], start["loss"], -1)
            self._remember(-1, start["accuracy"])
        with _stop_requests() as requested:
            for epoch in range(len(self.history), self.tuner.epochs):
                if self._has_stalled():
                    self.listener.note(
                        f"validation accuracy has not risen for {number_of(self.patience or 0, 'epoch')}; the run ends after {epoch}."
                    )
                    self._save(epoch, 0)
                    break
                self._epoch(epoch, requested)
                self._save_if_due(epoch + 1)
        if self.keep == "best" and self.best:
            self.model.load_state_dict(self.best["weights"])
        elif self._average is not None:
            self.model.load_state_dict(self._average.module.state_dict())
        elif self._mean is not None and self._mean.count:
            self._take_mean(self._mean)
        return self.history

    def _take_mean(self, mean: EpochMean) -> None:
        """Put the mean of the last epochs into the model, and take BatchNorm's statistics anew where they differed between them."""
        last = self.model.state_dict()
        weights = mean.weights(last)
        norms = differing_norms(self.model, [last, weights])
        self.model.load_state_dict(weights)
        reestimate_(self.model, norms, map(self._device, first_views(self.train, self.batch_size, self.seed, self.fabric.device)))

    @property
    def averaged_epochs(self) -> int:
        """Over how many epochs' weights the model holds the mean after `fit`; 0 where it holds those of one, as after an early stop."""
        return 0 if self._mean is None else self._mean.count

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights the model holds after `fit`; -1 is the linear probe that training began with."""
        return int(self.best["epoch"]) if self.keep == "best" and self.best else len(self.history) - 1

    def _has_stalled(self) -> bool:
        """Whether the best of the last `patience` epochs is no better than the best before them."""
        if self.patience is None or self.val is None or len(self.history) <= self.patience:
            return False
        accuracies: list[float] = [record["val"]["accuracy"] for record in self.history]
        return max(accuracies[-self.patience :]) <= max(accuracies[: -self.patience])

    def _order(self, epoch: int) -> Tensor:
        return balanced_order(self.train.labels, self.seed, epoch) if self.balanced else order(len(self.train), self.seed, epoch)

    def _epoch(self, epoch: int, requested: Callable[[], bool]) -> None:
        restarts = self.tuner.restarts
        restarted = self.tuner.start_epoch(epoch)
        self._follow(restarts)
        rates = self._rates()
        steps = split_batches(len(self.train), self.batch_size, self._order(epoch), world=self.fabric.world_size)
        self._module.train()
        began = time.perf_counter()
        known = self._known_views(epoch)
        self._run = self._module if known is None else self._frozen.go_on
        with closing(self._prepared(steps[self._skip :], epoch, known)) as self._feed:
            for step, rows in enumerate(steps):
                if step < self._skip:
                    continue
                self._step(epoch, step, rows)
                self._show(epoch, step, len(steps), time.perf_counter() - began)
                if self._asked_to_stop(step, requested()) and step + 1 < len(steps):
                    self._seconds += time.perf_counter() - began
                    self._check_weights(epoch)
                    self._save(epoch, step + 1)
                    raise Stopped(str(self.folder.parent))
        self._skip = 0
        self.scheduler.step()
        self._seconds += time.perf_counter() - began
        self._record(epoch, rates, restarted)
        if self._agreed(requested()) and epoch + 1 < self.tuner.epochs:
            self._save(epoch + 1, 0)
            raise Stopped(str(self.folder.parent))

    def _known_views(self, epoch: int) -> Stored | None:
        """What the frozen part gives of the pictures as an epoch shows them, where it is stored."""
        found = self._frozen.look(self._first, self._seen_again())
        if found and self.train.views is None and self.tuner.epochs > 1:
            self.listener.note("each epoch draws new crops of the training pictures; --views 4 would show four of each, computed once.")

        def read(rows: Tensor) -> Tensor:
            return self._device(self.train.training(rows, self.seed, epoch, self.fabric.device)[0])

        return self._frozen.stored(VIEWS, str(self.train.view(epoch)), len(self.train), read, self.train.workers, training=True)

    def _first(self, count: int) -> Tensor:
        """So many training pictures at the centre crop, or all."""
        return self._device(self.train.evaluation(torch.arange(min(count, len(self.train)))))

    def _seen_again(self) -> dict[str, int]:
        """{set of pictures: how many a run looks at more than once}, as `FrozenPart.look` takes them."""
        if self.fabric.world_size > 1:  # Each rank has other pictures in each epoch.
            return {}
        train, sets = self.train, {}
        mixes = train.augment is not None and train.augment.mixes
        asked = any(method.uses_source for method in self.tuner.methods)
        if train.views is not None and train.views < self.tuner.epochs and not (mixes or asked or self.balanced):
            sets[VIEWS] = train.views * len(train)
        if self._average is None and self.tuner.epochs > 1:
            measured = {"val": self.val, "watched_test": self.watched}
            sets |= {GROUPS[name]: len(samples) for name, samples in measured.items() if samples is not None}
        return sets

    def _prepared(self, steps: list[Tensor], epoch: int, known: Stored | None) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Inputs and labels of this rank's micro-batches, in order: pictures, or what is known of them at the boundary."""

        def make(rows: Tensor) -> tuple[Tensor, Tensor]:
            if known is not None:
                return known.take(rows), self.train.labels[rows].to(self.fabric.device, non_blocking=True)
            x, y = self.train.training(rows, self.seed, epoch, self.fabric.device)
            return self._device(x), y

        return prefetch(make, (part for rows in steps for part in self._parts(rows)), self.train.workers)

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """This rank's micro-batches of a step."""
        mine = shard(rows, self.fabric.global_rank, self.fabric.world_size)
        return split_batches(len(mine), max(2, -(-len(mine) // self.grad_accum_steps)), mine) if self.grad_accum_steps > 1 else [mine]

    def _step(self, epoch: int, step: int, rows: Tensor) -> None:
        parts = self._parts(rows)
        for number, part in enumerate(parts):
            with self.fabric.no_backward_sync(self._module, enabled=number + 1 < len(parts) and self.fabric.world_size > 1):
                # Averaging over ranks must give the mean over the global batch, also where ranks hold unequal shares of it.
                self._backward(epoch, step, part, len(part) * self.fabric.world_size / len(rows))
        for recorder in self.recorders.values():
            recorder.gradients()
        self.tuner.gradients_()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], self.clip_norm)
        restarts = self.tuner.restarts
        self._wrapped_optimizer.step()
        self._wrapped_optimizer.zero_grad()
        self._follow(restarts)
        if self._average is not None:
            self._average.update_parameters(self.model)

    def _follow(self, restarts: int) -> None:
        """Let averages begin anew if there were restarts since `restarts` of them."""
        if self.tuner.restarts > restarts:
            if self._average is not None:
                self._average.begin_anew()
            if self._mean is not None:
                self._mean.begin_anew()

    def _backward(self, epoch: int, step: int, rows: Tensor, share: float) -> None:
        asked = time.perf_counter()
        x, y = next(self._feed)
        self._waited += time.perf_counter() - asked
        loss = self.tuner.loss(self._run, x, y, self.criterion, indices=self.train.keys(rows))
        # Of a mixed picture the larger share counts.
        classes = y.argmax(1) if y.is_floating_point() else y
        hits = (self.tuner.outputs.argmax(1) == classes).sum()
        if self._waits:
            value = float(loss.detach())
            self.check(LOSSES["train"], value, epoch, step)
            self._meter.add(value, int(hits), len(rows))
        else:
            self._meter.add(loss.detach().double(), hits, len(rows))
        self.fabric.backward(loss * share)

    def _rates(self) -> dict[str, float]:
        """Learning rate of backbone and head at the epoch's first step, wherever in it the run goes on; of scaled layers, the highest."""
        rates: dict[str, float] = {}
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_lr(), strict=True):
            rates[group["name"]] = max(rates.get(group["name"], 0.0), float(rate))
        return rates

    def _record(self, epoch: int, rates: dict[str, float], restarted: bool) -> None:
        sums = self.fabric.all_reduce(torch.tensor(self._meter.numbers(), dtype=torch.float64), reduce_op="sum")
        train = Meter(float(sums[0]), int(sums[1]), int(sums[2])).means()
        angles = self.tuner.conflict_stats()
        record: dict[str, Any] = {
            "epoch": epoch,
            "lr": rates,
            "train": train,
            **({} if self.val is None else {"val": self._measure("val", self.val)}),
            **({} if self.watched is None else {"watched_test": self._measure("watched_test", self.watched)}),
            "penalty": self.tuner.penalties(),
            "restarted": restarted,
            **({} if angles is None else {"direction": angles}),
            **({"analysis": {name: recorder.epoch() for name, recorder in self.recorders.items()}} if self.recorders else {}),
            "timing": {"seconds": self._seconds, "data_seconds": self._waited, "images_per_second": len(self.train) / self._seconds},
        }
        self._check_epoch(record)
        self.history.append(record)
        self._meter, self._seconds, self._waited = Meter(), 0.0, 0.0
        if self._mean is not None and epoch >= first_averaged(self.tuner.epochs):
            self._mean.add(self.model.state_dict())
        if self.keep == "best" and not restarted and record["val"]["accuracy"] > self.best.get("accuracy", -1.0):
            self._remember(epoch, record["val"]["accuracy"])
        self.listener.epoch(record)

    def _remember(self, epoch: int, accuracy: float) -> None:
        """Keep the present weights, or their average, as the best so far."""
        weights = {key: value.detach().cpu().clone() for key, value in self._judged.state_dict().items()}
        self.best = {"epoch": epoch, "accuracy": accuracy, "weights": weights}

    def check(self, what: str, value: float, epoch: int, step: int | None = None) -> None:
        """Let a run go no further than to the first number that is not finite.

        Args:
            what: The number, in words.
            value: The number.
            epoch: That it was found at; -1 before the first.
            step: That it was found at; None after the epoch.

        Raises:
            Diverged: Saying which rate to try, and where the last finite weights are.
        """
        if math.isfinite(value):
            return
        when = f"at epoch {epoch + 1}" if epoch >= 0 else "before training"
        rate, head = self.tuner.lr, self.tuner.head_lr
        path = newest_finite(self.folder, self._watched_weights)
        raise Diverged(
            f"{what} became {value} {when}{'' if step is None else f', step {step + 1}'}, with learning rate {rate:g}"
            f"{'' if head == rate else f' ({head:g} of the head)'}; "
            f"try --lr {rate / 10:g}{'' if head == rate else f' --head-lr {head / 10:g}'}, or --precision 32, or look for broken labels"
            f" ({'no weights were saved before' if path is None else f'the last finite weights are in {path}'})."
        )

    def _check_epoch(self, record: dict[str, Any]) -> None:
        for name, what in LOSSES.items():
            if name in record:
                self.check(what, record[name]["loss"], record["epoch"])
        self._check_weights(record["epoch"])

    def _check_weights(self, epoch: int) -> None:
        if not is_finite(self.model.state_dict(), self._watched_weights):
            self.check("a weight", math.nan, epoch)

    @property
    def _judged(self) -> nn.Module:
        """The network that stands for the run: the average, where there is one."""
        return self.model if self._average is None else self._average.module

    def _measure(self, split: str, samples: Samples) -> dict[str, float]:
        told = partial(self.listener.progress, MEASURING[split])
        module = self._module if self._average is None else self._average.module
        probabilities = evaluate(self.fabric, module, samples, told, self._at_boundary(split, samples)).softmax(1)
        hits = probabilities.argmax(1) == samples.labels
        return {"loss": mean_nll(probabilities, samples.labels), "accuracy": float(hits.double().mean())}

    def _at_boundary(self, split: str, samples: Samples) -> "tuple[Run, Run] | None":
        """What reads rows of a split at the boundary, and what goes on from there; None where the network looks at the pictures themselves."""
        read = partial(samples.evaluation, device=self.fabric.device)
        known = self._frozen.stored(GROUPS[split], "", len(samples), lambda rows: self._device(read(rows)), samples.workers, training=False)
        return None if known is None else (known.take, self._frozen.go_on)

    def _show(self, epoch: int, step: int, steps: int, seconds: float) -> None:
        if not self._waits:
            # Reading a number waits for all that the device was given, so that it runs dry.
            if time.perf_counter() - self._read < READING and step + 1 < steps:
                return
            self.check(LOSSES["train"], self._meter.numbers()[0], epoch, step)
            self._read = time.perf_counter()
        rate = (step + 1 - self._skip) / seconds
        left = ((self.tuner.epochs - epoch) * steps - step - 1) / rate
        means = self._meter.means()
        self.listener.step(epoch, self.tuner.epochs, step + 1, steps, means["loss"], means["accuracy"], rate * self.batch_size, left)

    def _device(self, x: Tensor) -> Tensor:
        return x.to(self.fabric.device, memory_format=torch.channels_last)

    def _asked_to_stop(self, step: int, mine: bool) -> bool:
        """Whether to stop after a step; several devices, which would wait for each other to agree, ask now and then."""
        return (self._waits or self.fabric.world_size == 1 or (step + 1) % AGREEING == 0) and self._agreed(mine)

    def _agreed(self, mine: bool) -> bool:
        """Whether it is so on any rank: a signal may reach only one of them."""
        if self.fabric.world_size == 1:
            return mine
        return bool(self.fabric.all_reduce(torch.tensor(float(mine)), reduce_op="max") > 0)  # type: ignore[operator]

    def _save_if_due(self, epoch: int) -> None:
        """Save the state after an epoch where that is the last, or `SPARSELY` times as long has passed as it took the last time."""
        if epoch == self.tuner.epochs or self._agreed(time.perf_counter() - self._saved >= SPARSELY * self._saving):
            self._save(epoch, 0)

    def _save(self, epoch: int, step: int) -> None:
        began = time.perf_counter()
        ranks = _gather_objects(self.fabric, {"random": random_state(), "meter": list(self._meter.numbers())})
        if self.fabric.is_global_zero:
            save_state(self.folder, epoch, step, {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "tuner": self.tuner.state_dict(),
                "choices": self.choices,
                "packages": package_versions(DECISIVE),
                "ranks": ranks,
                "skip": step,
                "seconds": self._seconds,
                "data_seconds": self._waited,
                "history": self.history,
                "recorders": {name: recorder.state_dict() for name, recorder in self.recorders.items()},
                "best": self.best,
                **({} if self._average is None else {"average": self._average.state_dict()}),
                **({} if self._mean is None else {"mean": self._mean.state_dict()}),
            })  # fmt: skip
        self.fabric.barrier()
        self._saved = time.perf_counter()
        self._saving = self._saved - began

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state.

        Raises:
            Unfit: If it is not a state of this training, on this rank or another; some of it is loaded then.
            UserError: If another number of devices wrote it.
        """
        why = ""
        try:
            with unfit():
                self._load(state)
        except Unfit as error:
            why = str(error)
        if self._agreed(bool(why)):
            raise Unfit(why or "it does not fit on another device")
        self.resumed = True

    def _load(self, state: dict[str, Any]) -> None:
        _check_kinds(state)
        if len(state["ranks"]) != self.fabric.world_size:
            raise UserError(
                f"this run was trained with {number_of(len(state['ranks']), 'device')}, found {self.fabric.world_size}; resume it with the same number."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.tuner.load_state_dict(state["tuner"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._mean is not None:
            self._mean.load_state_dict(state["mean"])
        mine = state["ranks"][self.fabric.global_rank]
        set_random_state(mine["random"])
        self._meter = Meter(*mine["meter"])
        self._skip, self._seconds, self._waited = state["skip"], state["seconds"], state.get("data_seconds", 0.0)
        self.history, self.best = state["history"], state["best"]
        if self.best and misfits(self.model, self.best["weights"]):
            raise ValueError("its best weights do not fit the network")
        recorded = current_names(state["recorders"])
        for name, recorder in self.recorders.items():
            recorder.load_state_dict(recorded[name])


def _check_kinds(state: dict[str, Any]) -> None:
    """Refuse a state in which something is missing or of another kind, before any of it is loaded.

    Raises:
        ValueError: Naming it.
    """
    wrong = [key for key, kind in STATE.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise ValueError(f"it lacks {some(wrong)} or holds them in another form")
    if any(not isinstance(value, float | int) for rank in state["ranks"] for value in rank["meter"]) or not state["ranks"]:
        raise ValueError("it lacks a device's state or holds it in another form")
    if [record["epoch"] for record in state["history"]] != list(range(len(state["history"]))):
        raise ValueError("its history has gaps")
    if state["best"] and not isinstance(state["best"]["accuracy"] + state["best"]["epoch"], float | int):
        raise ValueError("its best epoch is not a number")


def evaluate(
    fabric: Fabric, module: nn.Module, samples: Samples, progress: Callable[[int, int], object] = noop,
    at_boundary: tuple[Run, Run] | None = None,
) -> Tensor:  # fmt: skip
    """Logits (N, C) of every sample, each computed once also on many ranks; the module's mode is put back.

    Args:
        fabric: Launched.
        module: The network.
        samples: The pictures.
        progress: Told (done, total) of this rank's.
        at_boundary: What reads some rows, and what the network makes of that, where neither is from the pictures on.

    Returns:
        (N, C) float32 on the CPU, in the order of the samples.
    """
    read, run = at_boundary or (
        lambda part: samples.evaluation(part, fabric.device).to(memory_format=torch.channels_last), module,
    )  # fmt: skip
    training = module.training
    module.eval()
    rows = torch.arange(len(samples))[fabric.global_rank :: fabric.world_size]
    found = answers_to(rows, read, run, samples.workers, progress)
    module.train(training)
    pieces = _gather_objects(fabric, (rows, torch.cat(found) if found else None))
    classes = next(p.shape[1] for _, p in pieces if p is not None)
    logits = torch.empty(len(samples), classes)
    for where, values in pieces:
        if values is not None:
            logits[where] = values
    return logits


def answers_to(
    rows: Tensor, read: Callable[[Tensor], Tensor], run: Run, workers: int, progress: Callable[[int, int], object] = noop
) -> list[Tensor]:  # fmt: skip
    """What a network says of pictures, in batches (B, C) float32 on the CPU.

    Args:
        rows: (N,) of the pictures.
        read: Gives those of some rows.
        run: The network, in evaluation mode.
        workers: Threads that read ahead.
        progress: Told (done, total).

    Returns:
        One tensor a batch, in order.
    """
    found: list[Tensor] = []
    with torch.no_grad(), closing(prefetch(read, rows.split(EVAL_BATCH), workers)) as feed:
        for x in feed:
            found.append(run(x).float().cpu())
            progress(min(EVAL_BATCH * len(found), len(rows)), len(rows))
    return found


def _gather_objects(fabric: Fabric, value: Any) -> list[Any]:
    """The value of every rank, in their order, on each of them."""
    if fabric.world_size == 1:
        return [value]
    import torch.distributed as dist

    gathered: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(gathered, value)
    return gathered


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, termination signal or loss of the terminal into a request that is met between two steps.

    A second Ctrl-C acts at once; of the others a second one changes nothing, since a closing session sends several.
    """
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN}
    except ValueError:  # Python allows signal handlers in the main thread alone.
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
