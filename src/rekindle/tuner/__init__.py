"""`Tuner` holds methods and one direction, and calls them at the seams of anybody's training loop.

It knows no method by name. A loop makes these calls, and one that is forgotten raises at the first step::

    tuner = Tuner(model, [L2SP(alpha=0.01), Rifle(periods=4)], source=source, epochs=40, steps_per_epoch=len(loader))
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01), momentum=0.9)
    scheduler = tuner.scheduler(optimizer)
    for epoch in range(tuner.epochs):
        tuner.start_epoch(epoch)
        for x, y in loader:
            tuner.loss(model, x, y, criterion).backward()
            tuner.gradients_()
            optimizer.step(); optimizer.zero_grad()
        scheduler.step()

Methods that look at data first (Fisher, DELTA) need ``tuner.prepare(pass_over_data)`` before the first epoch; those that go on looking
(TPGM) need it after a resume too.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import ASGD, SGD, Optimizer

from rekindle.errors import agree, number_of, some
from rekindle.hooks import FeatureHooks
from rekindle.method import Batch, Clock, DataPasses, Direction, Method, PassOverData, Source, require
from rekindle.methods.directions.plain import PlainSum
from rekindle.methods.restarts.cosine import Cosine
from rekindle.models.structure import logits
from rekindle.rng import random_state
from rekindle.tuner.combine import ConflictStats, GradientSeparator, combine_gradients_
from rekindle.tuner.head_rate import TIED, read_head_lr
from rekindle.tuner.net import operate
from rekindle.tuner.scheduler import TunerScheduler
from rekindle.tuner.second_look import Look, SecondLook

GROUPS = ("backbone", "head")
Criterion = Callable[[Tensor, Tensor], Tensor]


class Tuner:
    """Compose methods and one direction around a network.

    Args:
        model: The network to fine-tune, its new head in place.
        methods: Any number of methods; at most one may own the learning rate of a group.
        source: The pre-trained network; None takes the model as it stands, its head counting as new.
        head: Names of the modules that are the new classifier; None asks `rekindle.models.find_classifier`.
        source_names: {parameter name: name in the source}; None matches by equal name and shape outside the head.
        direction: How the loss's gradient and the regularisers' are combined; None is the plain sum.
        schedule: Learning rate of the groups that no method owns; None is `Cosine()`.
        epochs: Epochs asked for, at least 1.
        steps_per_epoch: Optimiser steps in an epoch (not micro-batches), at least 1.
        seed: Random seed, the key of every random draw.
        decoupled: Whether penalties on weights act on the weights themselves, w - lr * h, as in AdamW, instead of passing
            through the optimiser. None: with every optimiser but SGD and ASGD, unless a direction needs them in the gradient.

    Attributes:
        epochs: Epochs to train: as asked, or fewer where a method trims the run.
        net: The network's parts by name.
        outputs: Logits of the last micro-batch, detached.
        restarts: How often methods have re-initialised something since this tuner was made.

    Raises:
        ValueError: If an argument is out of range, two methods own one group's learning rate, or two refuse each other or one
            the direction.
    """

    outputs: Tensor

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[Method] = (),
        *,
        source: Source | nn.Module | None = None,
        head: str | Sequence[str] | None = None,
        source_names: dict[str, str] | None = None,
        direction: Direction | None = None,
        schedule: Method | None = None,
        epochs: int,
        steps_per_epoch: int,
        seed: int = 0,
        decoupled: bool | None = None,
    ) -> None:
        require(epochs >= 1, f"epochs must be at least 1, found {epochs}.")
        require(steps_per_epoch >= 1, f"steps_per_epoch must be at least 1, found {steps_per_epoch}.")
        self.methods = list(methods)
        _check_pairs(self.methods)
        self.direction = PlainSum() if direction is None else copy.deepcopy(direction)  # What it remembers is this run's.
        plain = isinstance(self.direction, PlainSum)
        require(plain or not decoupled, "a direction needs the penalties in the gradient: leave decoupled, or --penalties decoupled, out.")
        if not plain:
            _check_direction(self.methods, self.direction)
        self.epochs = min([epochs, *(method.run_epochs(epochs) for method in self.methods)])
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self._own_source = source is None
        self.source = source if isinstance(source, Source) else Source(model if source is None else source)
        self._epoch, self._step, self._micro = -1, 0, 0
        self._called: set[str] = set()
        self._optimizer: Optimizer | None = None
        self._scheduler: TunerScheduler | None = None
        self._prepared = False
        self._has_data = False
        self._restarted = False
        self._perturbing = [method for method in self.methods if _overrides(method, "perturb_")]
        self._second_look = SecondLook()
        self.restarts = 0
        self._scaled = False
        self._decoupled = decoupled
        self._precision = torch.float64  # That of the outputs, once there are some.
        self._conflict_stats = ConflictStats()
        self._terms: dict[str, Tensor] = {}
        self._schedule = schedule or Cosine()
        self._owners = self._find_owners()
        self.net = operate(model, self.methods, self.source, head, source_names, seed)
        for method in self.methods:
            method.attach(self.net, self.source)
        self._device = self._find_device()
        self._hooks = FeatureHooks(model, [layer for method in self.methods for layer in method.hook_layers])
        self._asks_source = any(method.uses_source for method in self.methods)
        self._source_hooks = FeatureHooks(self.source.model, [layer for method in self.methods for layer in method.source_hook_layers])
        self._separator = None if plain else GradientSeparator(self.net.shared())

    def param_groups(self, lr: float, head_lr: float | str = TIED) -> list[dict[str, Any]]:
        """Parameter groups for any `torch.optim` optimiser, named "backbone" and "head", their weight decay 0.

        There are several of one name where a method scales the learning rate of some parameters.

        Args:
            lr: Base learning rate of the backbone, above 0.
            head_lr: That of the head: a number, such as `rekindle.tuner.head_rate.head_rate` gives; a multiple of `lr` such as "x10"; or
                "tied" for the same one, as in the papers.

        Returns:
            Mappings as `torch.optim` takes them: "params", "lr", "weight_decay" and "name", with "layer" where a method sets rates by
                layer.

        Raises:
            ValueError: For another `head_lr`, or if every parameter is frozen.
        """
        self.lr, self.head_lr = lr, read_head_lr(head_lr, lr)
        rates = {"backbone": self.lr, "head": self.head_lr}
        head = self.net.head_parameters()
        groups: dict[tuple[str, float, str], list[nn.Parameter]] = {}
        apart = any(method.scales_layers for method in self.methods)
        for name, parameter in self.net.parameters().items():
            if parameter.requires_grad:
                scale = math.prod(method.lr_scale(name) for method in self.methods)
                layer = name.rpartition(".")[0] if apart and name not in head else ""
                groups.setdefault(("head" if name in head else "backbone", scale, layer), []).append(parameter)
        require(bool(groups), "every parameter is frozen, so there is nothing to train.")
        ordered = sorted(groups.items(), key=lambda item: (GROUPS.index(item[0][0]), item[0][1]))
        return [
            {"params": members, "lr": rates[name] * scale, "weight_decay": 0.0, "name": name, **({"layer": layer} if layer else {})}
            for (name, scale, layer), members in ordered
        ]

    def warnings(self) -> list[str]:
        """What the methods have to say against this run, a sentence each; `rekindle.fit` shows them before it trains.

        Returns:
            Sentences; none where nothing is doubtful.
        """
        start = Clock(0, self.epochs, 0, self.steps_per_epoch, seed=self.seed)
        return [text for method in self.methods for text in method.warnings(start)] + self._idle_direction()

    def _idle_direction(self) -> list[str]:
        """Say so where a direction has nothing to combine with the loss."""
        regularisers = [method for method in self.methods if not self._stays_outside(method)]
        if self._separator is None or any(_overrides(method, verb) for method in regularisers for verb in ("gradient", "penalty")):
            return []
        decay = [f"; {method.name} is plain weight decay and stays outside it" for method in self.methods if method not in regularisers]
        name, why = self.direction.name, "".join(decay[:1])
        return [f"{name} has no transfer regulariser to combine{why}, so it changes nothing; add one such as l2_sp, or leave {name} out."]

    def scheduler(self, optimizer: Optimizer) -> "TunerScheduler":
        """The learning-rate scheduler, to be stepped once an epoch; it also shows the tuner the optimiser's steps.

        Returns:
            A scheduler with `step`, `state_dict` and `load_state_dict`, as those of torch.

        Raises:
            ValueError: If the optimiser was not built from `param_groups`, or adds weight decay beside a penalty.
        """
        named = [group.get("name") for group in optimizer.param_groups]
        require(all(name in GROUPS for name in named), "build the optimiser from tuner.param_groups(lr=...): its groups have names.")
        decays = any(group.get("weight_decay", 0) for group in optimizer.param_groups)
        penalized = any(_overrides(method, "gradient") for method in self.methods)
        require(not (decays and penalized), "the optimiser's weight_decay would be added to the penalty; set weight_decay=0.")
        self._optimizer = optimizer
        optimizer.register_step_post_hook(lambda *_: self._after_step())
        self._scheduler = TunerScheduler(optimizer, self.lr_factor, self._layer_factor)
        return self._scheduler

    def prepare(self, data: PassOverData | DataPasses) -> None:
        """Let methods estimate what they need from data, once, in evaluation mode; a resumed tuner has it already.

        Methods that look at data in training too are given them by each call.

        Args:
            data: Called for each pass; yields (inputs, labels) of the training set in evaluation transforms, on the model's
                device and equal on all ranks. `DataPasses` holds also the source's data and who is told of progress.
        """
        passes = data if isinstance(data, DataPasses) else DataPasses(data)
        for method in self.methods:
            method.keep_data(passes)
        self._has_data = True
        if self._prepared:
            return
        self._follow()
        modes = {module: module.training for module in self.net.model.modules()}
        self.net.model.eval()
        self.source.model.to(next(self.net.model.parameters()).device)
        for method in self.methods:
            method.prepare(passes)
        for module, mode in modes.items():
            module.training = mode
        self._agree()
        self._prepared = True

    def start_epoch(self, epoch: int) -> bool:
        """Begin an epoch: restarts happen here. A second call for the same epoch does nothing, so mid-epoch resume is safe.

        Args:
            epoch: 0-based.

        Returns:
            Whether a method re-initialised something.
        """
        self._check_data()
        if epoch == self._epoch:
            return self._restarted
        self.count_skipped_step()
        self._follow()
        require(
            0 <= epoch < self.epochs, f"epoch {epoch} is outside this run of {number_of(self.epochs, 'epoch')} (0 to {self.epochs - 1})."
        )
        optimizer = self._the_optimizer()
        self._check_last_epoch(epoch)
        self._check_groups(optimizer)
        self._epoch, self._step, self._micro = epoch, 0, 0
        self._conflict_stats = ConflictStats()
        self._restarted = self._restart(optimizer)
        changed = self._restarted or any(method.scales_layers for method in self.methods)
        if changed and self._scheduler is not None:  # A draw at a moment that nobody knew before begins a cycle of its own.
            self._scheduler.refresh(epoch, 0)
        return self._restarted

    def loss(self, model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, criterion: Criterion, indices: Tensor | None = None) -> Tensor:
        """Forward pass and training loss: the task's, on the methods' labels, plus penalties on activations.

        Args:
            model: What to call; the network itself or its wrapper (DDP, compiled).
            x: (B, ...) inputs.
            y: (B,) clean labels.
            criterion: (logits, labels) -> scalar.
            indices: (B,) positions in the training set, which draws on labels are keyed by.

        Returns:
            Scalar to call ``backward`` on; divide it by the number of micro-batches under accumulation.
        """
        labels = self.labels(y, indices)
        if not self._perturbing:
            return self._loss_of(logits(model(x)), x, labels, criterion, indices)
        look = Look(partial(self._loss_again, model, x, labels, criterion, indices, self._micro), random_state())
        loss = self._loss_of(logits(model(x)), x, labels, criterion, indices)
        self._second_look.note(loss, look)
        return loss

    def labels(self, y: Tensor, indices: Tensor | None = None) -> Tensor:
        """The labels to train on; the first half of `loss`, for loops that compute the network's outputs themselves.

        Args:
            y: (B,) int64 true classes.
            indices: (B,) positions in the training set, which draws on labels are keyed by.

        Returns:
            (B,) int64, or (B, C) float32 where a method mixes classes.
        """
        self.count_skipped_step()
        clock = self._clock()
        for method in self.methods:
            y = method.labels(y, indices, clock)
        return y

    def loss_of(self, outputs: Tensor, x: Tensor, labels: Tensor, criterion: Criterion, indices: Tensor | None = None) -> Tensor:
        """The second half of `loss`: from the network's outputs on `x` and the labels that `labels` gave.

        Args:
            outputs: (B, C) logits of the network.
            x: The inputs that they were computed from.
            labels: What `labels` gave.
            criterion: (logits, labels) -> scalar.
            indices: As in `labels`.

        Returns:
            A scalar with its graph, penalties on activations included.
        """
        names = " and ".join(method.name for method in self._perturbing)
        require(
            not names,
            f"{names} must compute the outputs again at other weights: use tuner.loss(model, x, y, criterion), or leave {names} out.",
        )
        return self._loss_of(outputs, x, labels, criterion, indices)

    def _loss_again(
        self, model: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, criterion: Criterion, indices: Tensor | None, micro: int
    ) -> Tensor:
        """The loss of a micro-batch at the weights of now; what the loop and the log read of the first pass stays."""
        kept = self.outputs, self._terms, self._micro
        self._micro = micro
        loss = self._loss_of(logits(model(x)), x, labels, criterion, indices, repeated=True)
        self.outputs, self._terms, self._micro = kept
        return loss

    def _loss_of(
        self, outputs: Tensor, x: Tensor, labels: Tensor, criterion: Criterion, indices: Tensor | None, repeated: bool = False
    ) -> Tensor:
        self.outputs, self._precision = outputs.detach(), outputs.dtype
        task = criterion(outputs, labels) * math.prod(method.task_weight() for method in self.methods)
        batch = Batch(x, labels, indices, outputs, self._clock(), self._hooks.take(), *self._ask_source(x), repeated)
        given = {method.name: method.penalty(batch) for method in self.methods}
        terms = {name: term for name, term in given.items() if term is not None}
        self._terms = {name: term.detach() for name, term in terms.items()}
        self._micro += 1
        self._called.add("loss")
        if not terms:
            return task
        penalty = torch.stack(list(terms.values())).sum()
        if self._separator is None or not penalty.requires_grad:
            return task + penalty
        return self._separator.join(task, penalty)

    @torch.no_grad()
    def gradients_(self, scale: float = 1.0) -> None:
        """Add the penalties' gradients to `.grad`, along the direction.

        Call it once a step: after the last backward and unscaling, before clipping and ``optimizer.step()``.

        Args:
            scale: The loss scale that a gradient scaler has divided `.grad` by; ``scaler.get_scale()``.

        Raises:
            UserError: If a direction meets a gradient that is not finite, without a scaler.
        """
        optimizer = self._the_optimizer()
        self.count_skipped_step()
        self._scaled = scale != 1
        clock = self._clock()
        acts = any(method.acts_on_outputs for method in self.methods)
        require(
            not acts or "loss" in self._called, "a method acts on labels or outputs: use tuner.loss(model, x, y, criterion).backward()."
        )
        if self._perturbing:
            self._look_again(optimizer, clock, scale)
        outside = [method for method in self.methods if self._stays_outside(method)]
        pairs = _merge(pair for method in self.methods if method not in outside for pair in method.gradient(clock))
        if self._separator is not None:
            names = {id(p): name for name, p in self.net.shared().items()}
            closed = {names[id(p)]: h for p, h in pairs if id(p) in names}
            pairs = [pair for pair in pairs if id(pair[0]) not in names]
            shared = {name: p for name, p in self.net.shared().items() if p.requires_grad}
            if shared:
                r, precision = self._separator.take(scale), self._precision
                combine_gradients_(shared, r, closed, self.direction, clock, self._conflict_stats, scale != 1, precision)
        pairs = _merge(iter([*pairs, *(pair for method in outside for pair in method.gradient(clock))]))
        if self.is_decoupled:
            _decay_(pairs, _rates(optimizer))
        else:
            _add_(pairs)
        for method in self.methods:
            method.before_step(clock)
        self._called.add("gradients_")

    def _look_again(self, optimizer: Optimizer, clock: Clock, scale: float) -> None:
        """Let methods move the weights, take the loss's gradients there in place of those here, and put the weights back."""
        names = " and ".join(method.name for method in self._perturbing)
        require(scale == 1, f"{names} takes two gradients a step, and a gradient scaler knows of one; train in bfloat16 or float32.")
        held = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        before = [p.detach().clone() for p in held]
        moved = [method.perturb_(clock, held) for method in self._perturbing]  # Every method has its turn.
        if any(moved):
            if self._separator is not None:
                self._separator.take(scale)  # The first pass's share of penalties goes with its gradients.
            optimizer.zero_grad()
            self._second_look.take(self.net.model)
            for p, old in zip(held, before, strict=True):
                p.copy_(old)
        self._second_look.looks.clear()

    def count_skipped_step(self) -> None:
        """Count the last step if a gradient scaler left it out, its gradients being infinite.

        `labels`, `loss`, `gradients_`, `start_epoch` and `state_dict` call it. Only a loop with a scaler that computes the
        network's outputs before `labels` calls it itself, after ``scaler.step(optimizer)``: the next step may begin with a restart.
        """
        if self._scaled and "gradients_" in self._called:
            self._called.clear()
            self._next_step(self._the_optimizer())

    @property
    def is_decoupled(self) -> bool:
        """Whether penalties on weights bypass the optimiser."""
        adaptive = not isinstance(self._optimizer, SGD | ASGD | None)
        return self._separator is None and (adaptive if self._decoupled is None else self._decoupled)

    @property
    def needs_data(self) -> list[str]:
        """Names of the methods that `prepare` must be called for."""
        return [method.name for method in self.methods if method.needs_data]

    def conflict_stats(self) -> dict[str, Any] | None:
        """What the direction met since the epoch began: mean cosine of g and h, mean share of conflicts, and the cosine of
        each step; None for the plain sum, which does not compute them.

        Returns:
            {"cosine": mean, "conflicts": share of the steps from 0 to 1, "cosines": one a step}, or None.
        """
        return None if self._separator is None else self._conflict_stats.summary()

    def lr_factor(self, group: str, epoch: int, step: int = 0) -> float:
        """Factor on the base learning rate of "backbone" or "head" at an epoch and a step inside it.

        Args:
            group: "backbone" or "head".
            epoch: From 0.
            step: From 0 to steps_per_epoch - 1.

        Returns:
            A factor, usually from 0 to 1.
        """
        factor = self._owners[group].lr_factor(group, self._moment(epoch, step))
        assert factor is not None
        return factor

    def _moment(self, epoch: int, step: int) -> Clock:
        """The clock that a schedule asks by; behind the last epoch it stands still."""
        return Clock(min(epoch, self.epochs - 1), self.epochs, step, self.steps_per_epoch, seed=self.seed)

    def _layer_factor(self, layer: str, epoch: int, step: int) -> float:
        """Product of what the methods say of a layer's rate."""
        clock = self._moment(epoch, step)
        return math.prod(method.layer_factor(layer, clock) for method in self.methods if method.scales_layers)

    def penalties(self) -> dict[str, float]:
        """Value of each penalty, by method: those on weights at present, those on activations on the last micro-batch.

        Returns:
            Finite numbers by the name of the method; methods without a penalty are left out.
        """
        with torch.no_grad():
            values = {method.name: method.value(self._clock()) for method in self.methods}
        found = {name: float(value) for name, value in values.items() if value is not None}
        for name, term in self._terms.items():
            found[name] = found.get(name, 0.0) + float(term)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, and what the methods cannot recompute."""
        self.count_skipped_step()
        return {
            "epoch": self._epoch,
            "step": self._step,
            "restarted": self._restarted,
            "prepared": self._prepared,
            "cosines": self._conflict_stats.cosines,
            "conflicts": self._conflict_stats.conflicts,
            "source": self.source.model.state_dict() if self._asks_source and self._own_source else {},
            "methods": [{"name": method.name, "state": method.state_dict()} for method in self.methods],
            "direction": self.direction.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. The anchors come from it, never from resumed weights.

        Raises:
            ValueError: If it was taken with other methods.
        """
        stored = [entry["name"] for entry in state["methods"]]
        mine = [method.name for method in self.methods]
        require(stored == mine, f"this checkpoint was trained with {stored}, but the methods here are {mine}.")
        self._follow()
        for method, entry in zip(self.methods, state["methods"], strict=True):
            method.load_state_dict(entry["state"])
        self.direction.load_state_dict(state.get("direction", {}))
        self._epoch, self._step, self._micro = state["epoch"], state["step"], 0
        self._restarted, self._prepared = state["restarted"], state["prepared"]
        self._conflict_stats = ConflictStats(list(state["cosines"]), list(state["conflicts"]))
        if state["source"]:
            self.source.model.load_state_dict(state["source"])
        if self._scheduler is not None:
            started = max(self._epoch, 0)
            self._scheduler.refresh(started + self._step // self.steps_per_epoch, self._step % self.steps_per_epoch)

    def _clock(self) -> Clock:
        require(self._epoch >= 0, "add tuner.start_epoch(epoch) at the beginning of each epoch.")
        return Clock(self._epoch, self.epochs, self._step, self.steps_per_epoch, self._micro, self.seed, _rank())

    def _the_optimizer(self) -> Optimizer:
        require(self._optimizer is not None, "add scheduler = tuner.scheduler(optimizer) before the first epoch.")
        assert self._optimizer is not None
        return self._optimizer

    def _check_data(self) -> None:
        """Refuse to train before methods have seen the data that they need."""
        require(
            self._prepared or not self.needs_data,
            f"{', '.join(self.needs_data)} must look at data first: add tuner.prepare(pass_over_data) before the first epoch.",
        )
        keeping = [method.name for method in self.methods if method.keeps_data]
        require(
            self._has_data or not keeping,
            f"{', '.join(keeping)} {agree(len(keeping), 'looks')} at data in training too, so a resumed run needs them again: "
            "call tuner.prepare(...) as the first run did.",
        )

    def _check_groups(self, optimizer: Optimizer) -> None:
        """Refuse to pass over parameters that were unfrozen after the groups were made: they would never train, and nobody would know."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        loose = [name for name, p in self.net.parameters().items() if p.requires_grad and id(p) not in held]
        require(
            not loose,
            f"{some(loose, 3)} can train, but the optimiser does not hold them, as when they were unfrozen after tuner.param_groups(); "
            "build the groups while nothing is frozen, or freeze with the method freeze or lp_ft.",
        )

    def _check_last_epoch(self, epoch: int) -> None:
        assert self._scheduler is not None
        require(
            epoch > self._epoch,
            f"epoch {epoch} begins, but the tuner has had {self._epoch + 1} of its {number_of(self.epochs, 'epoch')}; train again with a new Tuner, "
            "optimiser and scheduler, or go on from a checkpoint.",
        )
        require(
            self._scheduler.last_epoch == epoch,
            f"add scheduler.step() at the end of each epoch: epoch {epoch} begins, and it was called {number_of(self._scheduler.last_epoch, 'time')}.",
        )
        if self._epoch >= 0:
            require(
                self._step == self.steps_per_epoch,
                f"epoch {self._epoch} made {number_of(self._step, 'optimiser step')}, "
                f"but the tuner was built with steps_per_epoch={self.steps_per_epoch}.",
            )

    def _stays_outside(self, method: Method) -> bool:
        """Whether a method's gradient is added beside the direction, as the optimiser's weight decay is in the papers."""
        return self._separator is not None and method.is_weight_decay and self.direction.weight_decay == "outside"

    def _restart(self, optimizer: Optimizer) -> bool:
        clock = self._clock()
        restarted = [method.restart_(clock, optimizer) for method in self.methods]  # Every method has its turn, whatever the first says.
        self.restarts += any(restarted)
        return any(restarted)

    def _after_step(self) -> None:
        """What the optimiser's post-step hook runs: the ledger, then changes after a step, then what starts the next."""
        require(self._epoch >= 0, "add tuner.start_epoch(epoch) at the beginning of each epoch.")
        require("gradients_" in self._called, "add tuner.gradients_() between backward() and optimizer.step().")
        self._called.clear()
        optimizer = self._the_optimizer()
        rates, clock = _rates(optimizer), self._clock()
        with torch.no_grad():
            for method in self.methods:
                method.after_step_(clock, lambda parameter: rates.get(id(parameter), 0.0))
        self._next_step(optimizer)

    def _next_step(self, optimizer: Optimizer) -> None:
        require(
            self._step < self.steps_per_epoch,
            f"epoch {self._epoch} makes more optimiser steps than "
            f"steps_per_epoch={self.steps_per_epoch}; tuner.start_epoch(epoch) must begin each epoch.",
        )
        self._step, self._micro = self._step + 1, 0
        if self._step < self.steps_per_epoch:
            assert self._scheduler is not None
            self._scheduler.refresh(self._epoch, self._step)
            self._restarted = self._restart(optimizer) or self._restarted

    @torch.no_grad()
    def _ask_source(self, x: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What the frozen source makes of the same inputs, where a method asks."""
        if not self._asks_source:
            return None, {}
        source = self.source.model
        if next(source.parameters()).device != x.device:  # To move is to look at every module.
            source.to(x.device)
        outputs = logits(source(x))
        return outputs, self._source_hooks.take()

    def _find_device(self) -> torch.device:
        return next(iter(self.net.parameters().values())).device

    def _follow(self) -> None:
        """Attach the methods again if the network was moved to another device, so that anchors are on it; their state is kept."""
        device = self._find_device()
        if device == self._device:
            return
        self._device = device
        for method in self.methods:
            state = copy.deepcopy(method.state_dict())
            method.attach(self.net, self.source)
            method.load_state_dict(state)

    def _agree(self) -> None:
        """Give every rank what rank 0 prepared, so that a last bit of difference between machines cannot split them."""
        if not self.needs_data or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return
        states = [[method.state_dict() for method in self.methods]]
        dist.broadcast_object_list(states, src=0)
        for method, state in zip(self.methods, states[0], strict=True):
            method.load_state_dict(state)
        for parameter in self.net.parameters().values():
            dist.broadcast(parameter.data, src=0)

    @property
    def rate_owners(self) -> dict[str, str]:
        """Which method sets the learning rate of a group in place of the run's schedule.

        Returns:
            {"backbone" or "head": the method's name}, for those groups alone.
        """
        return {group: owner.name for group, owner in self._owners.items() if owner is not self._schedule}

    def _find_owners(self) -> dict[str, Method]:
        clock = Clock(0, self.epochs, 0, self.steps_per_epoch, seed=self.seed)
        owners: dict[str, Method] = {}
        for group in GROUPS:
            found = [method for method in self.methods if method.lr_factor(group, clock) is not None]
            names = " and ".join(method.name for method in found)
            require(len(found) <= 1, f"{names} both set the learning rate of the {group}; keep one of them.")
            owners[group] = found[0] if found else self._schedule
        return owners


def _overrides(method: Method, verb: str) -> bool:
    return getattr(type(method), verb) is not getattr(Method, verb)


def _check_pairs(methods: list[Method]) -> None:
    for one in methods:
        for other in methods:
            reason = one.incompatible_with(other) if one is not other else None
            require(reason is None, f"{one.name} and {other.name} do not go together: {reason}")


def _check_direction(methods: list[Method], direction: Direction) -> None:
    for method in methods:
        reason = method.incompatible_with_direction()
        require(reason is None, f"{method.name} and {direction.name} do not go together: {reason}")


def _merge(pairs: Iterator[tuple[nn.Parameter, Tensor]]) -> list[tuple[nn.Parameter, Tensor]]:
    """Sum the gradients that several penalties give for one parameter."""
    total: dict[nn.Parameter, Tensor] = {}
    for parameter, gradient in pairs:
        total[parameter] = total[parameter] + gradient if parameter in total else gradient
    return list(total.items())


def _add_(pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Add gradients to `.grad`, all at once where the types agree."""
    for parameter, gradient in pairs:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    grads = [p.grad for p, _ in pairs if p.grad is not None]
    if grads:
        torch._foreach_add_(grads, [h.to(g.dtype) for g, (_, h) in zip(grads, pairs, strict=True)])


def _decay_(pairs: list[tuple[nn.Parameter, Tensor]], rates: dict[int, float]) -> None:
    """w <- w - lr * h, before the optimiser's own step, as AdamW's weight decay."""
    for parameter, gradient in pairs:
        parameter.add_(gradient.to(parameter.dtype), alpha=-rates.get(id(parameter), 0.0))


def _rates(optimizer: Optimizer) -> dict[int, float]:
    """Learning rate by the identity of each parameter."""
    return {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
