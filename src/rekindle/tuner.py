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
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rekindle.method import Batch, Clock, Direction, Method, Net, PassOverData, PlainSum, Source, require
from rekindle.methods.restarts.cosine import Cosine

GROUPS = ("backbone", "head")
Criterion = Callable[[Tensor, Tensor], Tensor]


class Tuner:
    """Compose methods and one direction around a network.

    Args:
        model: The network to fine-tune, its new head in place.
        methods: Any number of methods; at most one may own the learning rate of a group.
        source: The pre-trained network; None takes the model as it stands, its head counting as new.
        head: Names of the modules that are the new classifier; None asks `rekindle.models.find_classifier`.
        origin: {parameter name: name in the source}; None matches by equal name and shape.
        direction: How the loss's gradient and the regulariser's are combined; None is the plain sum.
        schedule: Learning rate of the groups that no method owns; None is `Cosine()`.
        epochs: Epochs asked for, at least 1.
        steps_per_epoch: Optimiser steps in an epoch (not micro-batches), at least 1.
        seed: Key of every random draw.

    Attributes:
        epochs: Epochs to train: as asked, or fewer where a method trims the run.

    Raises:
        ValueError: If an argument is out of range or two methods own one group's learning rate.
    """

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[Method] = (),
        *,
        source: Source | nn.Module | None = None,
        head: str | Sequence[str] | None = None,
        origin: dict[str, str] | None = None,
        direction: Direction | None = None,
        schedule: Method | None = None,
        epochs: int,
        steps_per_epoch: int,
        seed: int = 0,
    ) -> None:
        require(epochs >= 1, f"epochs must be at least 1, found {epochs}.")
        require(steps_per_epoch >= 1, f"steps_per_epoch must be at least 1, found {steps_per_epoch}.")
        self.methods = list(methods)
        self.direction = direction or PlainSum()
        self.epochs = min([epochs, *(method.run_epochs(epochs) for method in self.methods)])
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        if not isinstance(source, Source):
            from_model = source is None
            source = Source(model if source is None else source)
        else:
            from_model = False
        names = _head_names(model, head)
        self.net = Net(model, names, _origin(model, source, names, from_model) if origin is None else dict(origin))
        self._epoch, self._step, self._micro = -1, 0, 0
        self._called: set[str] = set()
        self._optimizer: Optimizer | None = None
        self._scheduler: TunerScheduler | None = None
        self._prepared = False
        self._restarted = False
        self._schedule = schedule or Cosine()
        self._owners = self._find_owners()
        for method in self.methods:
            method.surgery(self.net, source)
        for method in self.methods:
            method.attach(self.net, source)
        self._taps = _Taps(model, {name for method in self.methods for name in method.taps})

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups "backbone" and "head" for any `torch.optim` optimiser, their weight decay 0.

        Args:
            lr: Base learning rate of both, above 0.
        """
        head = self.net.head_parameters()
        rest = {name: p for name, p in self.net.parameters().items() if name not in head}
        groups = []
        for name, members in zip(GROUPS, (rest, head), strict=True):
            trainable = [p for p in members.values() if p.requires_grad]
            if trainable:
                groups.append({"params": trainable, "lr": lr, "weight_decay": 0.0, "name": name})
        require(bool(groups), "every parameter is frozen, so there is nothing to train.")
        return groups

    def scheduler(self, optimizer: Optimizer) -> "TunerScheduler":
        """The learning-rate scheduler, to be stepped once an epoch; it also shows the tuner the optimiser's steps.

        Raises:
            ValueError: If the optimiser was not built from `param_groups`, or adds weight decay beside a penalty.
        """
        named = [group.get("name") for group in optimizer.param_groups]
        require(all(name in GROUPS for name in named), "build the optimiser from tuner.param_groups(lr=...): its groups have names.")
        decays = any(group.get("weight_decay", 0) for group in optimizer.param_groups)
        penalised = any(_overrides(method, "gradient") for method in self.methods)
        require(not (decays and penalised), "the optimiser's weight_decay would be added to the penalty; set weight_decay=0.")
        self._optimizer = optimizer
        optimizer.register_step_post_hook(lambda *_: self._after_step())
        self._scheduler = TunerScheduler(optimizer, self.lr_factor)
        return self._scheduler

    def prepare(self, pass_over_data: PassOverData) -> None:
        """Let methods estimate what they need from data, once; a resumed tuner has it already.

        Args:
            pass_over_data: Called for each pass; yields (inputs, labels) in evaluation transforms, equal on all ranks.
        """
        if not self._prepared:
            for method in self.methods:
                method.prepare(pass_over_data)
            self._prepared = True

    def start_epoch(self, epoch: int) -> bool:
        """Begin an epoch: restarts happen here. A second call for the same epoch does nothing, so mid-epoch resume is safe.

        Args:
            epoch: 0-based.

        Returns:
            Whether a method re-initialised something.
        """
        if epoch == self._epoch:
            return self._restarted
        require(0 <= epoch < self.epochs, f"epoch {epoch} is outside this run of {self.epochs} epochs (0 to {self.epochs - 1}).")
        optimizer = self._the_optimizer()
        self._check_last_epoch(epoch)
        if not self._prepared:
            needs = [method.name for method in self.methods if _overrides(method, "prepare")]
            require(not needs, f"{', '.join(needs)} must look at data first: add tuner.prepare(pass_over_data) before the first epoch.")
        self._epoch, self._step, self._micro = epoch, 0, 0
        self._restarted = self._restart(optimizer)
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
        clock = self._clock()
        labels = y
        for method in self.methods:
            labels = method.labels(labels, indices, clock)
        outputs = model(x)
        self.outputs = outputs.detach()
        total = criterion(outputs, labels) * math.prod(method.task_weight() for method in self.methods)
        batch = Batch(x, labels, indices, outputs, self._taps.take())
        for method in self.methods:
            term = method.penalty(batch)
            if term is not None:
                total = total + term
        self._micro += 1
        self._called.add("loss")
        return total

    @torch.no_grad()
    def gradients_(self) -> None:
        """Add the penalties' gradients to `.grad`, along the direction. Call it once a step: after the last backward
        and unscaling, before clipping and ``optimizer.step()``."""
        self._the_optimizer()
        clock = self._clock()
        acts = any(_overrides(method, verb) for method in self.methods for verb in ("labels", "penalty", "task_weight"))
        require(not acts or "loss" in self._called, "a method acts on labels or outputs: use tuner.loss(model, x, y, criterion).backward().")
        pairs = _merge(pair for method in self.methods for pair in method.gradient(clock))
        shared = {id(p) for p in self.net.shared().values()}
        new = [pair for pair in pairs if id(pair[0]) not in shared]
        _add_(self._directed([pair for pair in pairs if id(pair[0]) in shared]) + new)
        self._called.add("gradients_")

    def lr_factor(self, group: str, epoch: int, step: int = 0) -> float:
        """Factor on the base learning rate of "backbone" or "head" at an epoch and a step inside it."""
        clock = Clock(min(epoch, self.epochs - 1), self.epochs, step, self.steps_per_epoch, seed=self.seed)
        factor = self._owners[group].lr_factor(group, clock)
        assert factor is not None
        return factor

    def penalties(self) -> dict[str, float]:
        """Present value of each weight penalty, by method."""
        with torch.no_grad():
            values = {method.name: method.value(self._clock()) for method in self.methods}
        return {name: float(value) for name, value in values.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, and what the methods cannot recompute."""
        return {
            "epoch": self._epoch,
            "step": self._step,
            "restarted": self._restarted,
            "prepared": self._prepared,
            "methods": [{"name": method.name, "state": method.state_dict()} for method in self.methods],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken. The anchors come from it, never from resumed weights.

        Raises:
            ValueError: If it was taken with other methods.
        """
        stored = [entry["name"] for entry in state["methods"]]
        mine = [method.name for method in self.methods]
        require(stored == mine, f"this checkpoint was trained with {stored}, but the methods here are {mine}.")
        for method, entry in zip(self.methods, state["methods"], strict=True):
            method.load_state_dict(entry["state"])
        self._epoch, self._step, self._micro = state["epoch"], state["step"], 0
        self._restarted, self._prepared = state["restarted"], state["prepared"]
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

    def _check_last_epoch(self, epoch: int) -> None:
        assert self._scheduler is not None
        require(self._scheduler.last_epoch == epoch, "add scheduler.step() at the end of each epoch: "
                f"epoch {epoch} begins, and it was called {self._scheduler.last_epoch} times.")
        if self._epoch >= 0:
            require(self._step == self.steps_per_epoch, f"epoch {self._epoch} made {self._step} optimiser steps, "
                    f"but the tuner was built with steps_per_epoch={self.steps_per_epoch}.")

    def _restart(self, optimizer: Optimizer) -> bool:
        clock = self._clock()
        return any([method.restart_(clock, optimizer) for method in self.methods])

    def _after_step(self) -> None:
        """What the optimiser's post-step hook runs: the ledger, then changes after a step, then what starts the next."""
        require(self._epoch >= 0, "add tuner.start_epoch(epoch) at the beginning of each epoch.")
        require("gradients_" in self._called, "add tuner.gradients_() between backward() and optimizer.step().")
        self._called.clear()
        require(self._step < self.steps_per_epoch, f"epoch {self._epoch} makes more optimiser steps than "
                f"steps_per_epoch={self.steps_per_epoch}; tuner.start_epoch(epoch) must begin each epoch.")
        optimizer = self._the_optimizer()
        lr = {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
        clock = self._clock()
        with torch.no_grad():
            for method in self.methods:
                method.after_step_(clock, lr)
        self._step, self._micro = self._step + 1, 0
        if self._step < self.steps_per_epoch:
            assert self._scheduler is not None
            self._scheduler.refresh(self._epoch, self._step)
            self._restarted = self._restart(optimizer) or self._restarted

    def _directed(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> list[tuple[nn.Parameter, Tensor]]:
        """Scale g in place and return b * h, with the weights of the direction for the whole vector or each tensor."""
        if isinstance(self.direction, PlainSum):
            return pairs
        blocks = [[pair] for pair in pairs] if self.direction.per_tensor else [pairs]
        return [pair for block in blocks if block for pair in self._directed_block(block)]

    def _directed_block(self, block: list[tuple[nn.Parameter, Tensor]]) -> list[tuple[nn.Parameter, Tensor]]:
        g = [torch.zeros_like(h) if p.grad is None else p.grad for p, h in block]
        h = [gradient for _, gradient in block]
        if not self.direction.per_tensor:
            silent = {id(p) for p, _ in block}
            g = g + [p.grad for p in self.net.shared().values() if p.grad is not None and id(p) not in silent]
            h = h + [torch.zeros((), device=x.device).expand_as(x) for x in g[len(h):]]
        a, b = self.direction.weights(_inner(g, g), _inner(g, h), _inner(h, h))
        require(math.isfinite(a) and math.isfinite(b), f"the direction's weights are {a} and {b} at epoch {self._epoch}, step {self._step}.")
        if a != 1:
            torch._foreach_mul_(g, a)
        return [(p, gradient * b) for p, gradient in block]

    def _find_owners(self) -> dict[str, Method]:
        clock = Clock(0, self.epochs, 0, self.steps_per_epoch, seed=self.seed)
        owners: dict[str, Method] = {}
        for group in GROUPS:
            found = [method for method in self.methods if method.lr_factor(group, clock) is not None]
            names = " and ".join(method.name for method in found)
            require(len(found) <= 1, f"{names} both set the learning rate of the {group}; keep one of them.")
            owners[group] = found[0] if found else self._schedule
        return owners


class TunerScheduler(LRScheduler):
    """Base learning rates times the methods' factors: closed form in the epoch, so resuming needs no history.

    Args:
        optimizer: Its groups are named "backbone" and "head".
        factor: (group, epoch, step) -> factor.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[str, int, int], float]) -> None:
        self._factor = factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """Rates at the first step of the present epoch."""
        return self._rates(self.last_epoch, 0)

    def refresh(self, epoch: int, step: int) -> None:
        """Set the rates of a step inside an epoch, for schedules that change by step."""
        for group, rate in zip(self.optimizer.param_groups, self._rates(epoch, step), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Epochs done and base rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that many epochs."""
        self.last_epoch, self.base_lrs = state["last_epoch"], list(state["base_lrs"])
        self.refresh(self.last_epoch, 0)

    def _rates(self, epoch: int, step: int) -> list[float]:
        groups = zip(self.base_lrs, self.optimizer.param_groups, strict=True)
        return [float(base * self._factor(group["name"], epoch, step)) for base, group in groups]


class _Taps:
    """Keep the outputs of named modules during a forward pass."""

    def __init__(self, model: nn.Module, names: set[str]) -> None:
        self._kept: dict[str, Tensor] = {}
        for name in sorted(names):
            model.get_submodule(name).register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._kept[name] = output

        return keep

    def take(self) -> dict[str, Tensor]:
        """The activations since the last call."""
        kept, self._kept = dict(self._kept), {}
        return kept


def _overrides(method: Method, verb: str) -> bool:
    return getattr(type(method), verb) is not getattr(Method, verb)


def _head_names(model: nn.Module, head: str | Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(head, str):
        return (head,)
    if head is not None:
        require(len(head) > 0, "head must name at least one module.")
        return tuple(head)
    from rekindle.models import find_classifier

    return tuple(find_classifier(model))


def _origin(model: nn.Module, source: Source, head: tuple[str, ...], from_model: bool) -> dict[str, str]:
    """Equal names and shapes; where the source is the model itself, its head counts as new."""
    inside = tuple(f"{name}." for name in head) if from_model else ()
    shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
    matched = {name: name for name, p in model.named_parameters() if shapes.get(name) == p.shape}
    return {name: name for name in matched if not name.startswith(inside)} if inside else matched


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


def _inner(a: list[Tensor], b: list[Tensor]) -> float:
    """Inner product accumulated in float64."""
    return float(sum(torch.dot(x.reshape(-1).double(), y.reshape(-1).double()) for x, y in zip(a, b, strict=True)))


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
