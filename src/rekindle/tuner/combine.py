"""Combine the loss's gradient g with the regularisers' h along a direction, on what `.grad` holds when a step is due.

`.grad` is the sum g + r, r being the share of penalties on activations. A backward pass cannot tell the two apart, so
`GradientSeparator` lets a second one, through the penalties alone, collect r. A penalty on weights has a closed form c and needs no
second pass; then h = r + c.

Some parameters have a gradient of 0 whatever the data, such as the bias of a convolution before BatchNorm; what a backward pass gives
for them is rounding, whose direction is random, and no direction may be taken along it. See `rounding`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rekindle.errors import UserError
from rekindle.method import Clock, Direction
from rekindle.tuner.inner_products import inner_products


class GradientSeparator:
    """Collects r, the gradient of penalties on activations with respect to some parameters, during the backward pass.

    Args:
        parameters: By name.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._collected: dict[str, Tensor] = {}

    def join(self, task: Tensor, penalty: Tensor) -> Tensor:
        """Their sum, whose backward pass collects the penalty's share as well: twice the cost of the penalty's gradient.

        Returns:
            A scalar with its graph.
        """
        total: Tensor = _Joined.apply(task, penalty, self)
        return total

    def collect(self, factor: Tensor, penalty: Tensor) -> None:
        """Add factor * d penalty / d parameters. `factor` carries accumulation, unequal shards and loss scaling."""
        trainable = {name: p for name, p in self._parameters.items() if p.requires_grad}
        if not trainable:  # All that the source has is frozen: there is nothing to separate.
            return
        with torch.enable_grad():
            found = torch.autograd.grad(penalty, list(trainable.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(trainable, found, strict=True):
            if gradient is not None:
                before = self._collected.get(name)
                self._collected[name] = gradient * factor if before is None else before + gradient * factor

    def take(self, scale: float) -> dict[str, Tensor]:
        """r by name, averaged over ranks and freed of the loss scale; then start anew.

        Returns:
            Gradients by name, each of its parameter's shape.
        """
        collected, self._collected = self._collected, {}
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            for tensor in collected.values():
                dist.all_reduce(tensor)
                tensor.div_(dist.get_world_size())
        if scale != 1:
            for tensor in collected.values():
                tensor.div_(scale)
        return collected


class _Joined(torch.autograd.Function):
    """task + penalty; going backward, the incoming factor reaches the separator too."""

    @staticmethod
    def forward(ctx: Any, task: Tensor, penalty: Tensor, separator: GradientSeparator) -> Tensor:
        ctx.penalty, ctx.separator = penalty, separator
        return task + penalty

    @staticmethod
    def backward(ctx: Any, *factors: Any) -> tuple[Tensor, Tensor, None]:
        ctx.separator.collect(factors[0], ctx.penalty)
        ctx.penalty = None  # The graph holds this node, which would hold the graph.
        return factors[0], factors[0], None


@dataclass
class ConflictStats:
    """What the direction met in an epoch.

    Attributes:
        cosines: Of the angle between g and h over all shared parameters, one a step; 0 where one of them is zero.
        conflicts: Share of vectors (one, or one a layer or tensor) with <g, h> < 0, one a step.
    """

    cosines: list[float] = field(default_factory=list)
    conflicts: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Means over the epoch, and the cosine of each step.

        Returns:
            Plain values by name, as metrics.jsonl holds them.
        """
        count = max(len(self.cosines), 1)
        return {
            "cosine": sum(self.cosines) / count,
            "conflicts": sum(self.conflicts) / count,
            "cosines": [round(c, 6) for c in self.cosines],
        }


def combine_gradients_(
    parameters: dict[str, nn.Parameter], r: dict[str, Tensor], closed: dict[str, Tensor], direction: Direction, clock: Clock, angles: ConflictStats,
    scaled: bool = False, precision: torch.dtype = torch.float64,
) -> None:  # fmt: skip
    """Replace `.grad` = g + r of the shared parameters by a*g + b*h, h = r + closed, and note the angle.

    Args:
        parameters: Trainable shared ones by name.
        r: Share of activation penalties in `.grad`, by name.
        closed: Closed-form gradients of weight penalties, by name; not yet in `.grad`.
        direction: Gives a and b.
        clock: The moment, for directions that fade and for messages.
        angles: Grows by one entry.
        scaled: Whether a gradient scaler watches, which skips a step of infinite gradients by itself: then nothing is changed.
        precision: Type that the network computed in, where that is coarser than its parameters', as under autocast.

    Raises:
        UserError: If a gradient is not finite, naming its parameter.
    """
    strength = direction.strength(clock)
    totals = _grads(parameters)
    squares = {name: total for name, (total, _, _) in zip(r, inner_products([totals[name] for name in r], [None] * len(r)), strict=True)}
    gs, hs = _split_(totals, r, closed)
    inner = dict(zip(gs, inner_products(list(gs.values()), [hs.get(name) for name in gs]), strict=True))
    counts = {name: max(g.numel(), 1) for name, g in gs.items()}
    sizes = {name: (math.sqrt(gg / counts[name]), math.sqrt(squares.get(name, gg) / counts[name])) for name, (gg, _, _) in inner.items()}
    noise = rounding(sizes, {name: max(torch.finfo(g.dtype).eps, torch.finfo(precision).eps) for name, g in gs.items()})
    products, weights = [], {}
    for names in _blocks(list(parameters), direction.granularity):
        gg, gh, hh = (strength**power * sum(inner[name][power] for name in names) for power in range(3))
        if not math.isfinite(gg + hh):
            if scaled:
                _add_(gs, r)
                return
            raise UserError(_culprit({name: (gs[name], hs.get(name)) for name in names}, clock))
        if noise.issuperset(names):
            gg = gh = 0.0  # Nothing of the loss can be hurt there.
        weights.update(dict.fromkeys(names, direction.weights_of(names[0], gg, gh, hh)))
        products.append((gg, gh, hh))
    _combine_(gs, hs, weights, strength)
    gg, gh, hh = (sum(values) for values in zip(*products, strict=True))
    length = math.sqrt(gg) * math.sqrt(hh)
    angles.cosines.append(gh / length if length > 0 else 0.0)
    angles.conflicts.append(sum(gh < 0 for _, gh, _ in products) / len(products))


def rounding(sizes: dict[str, tuple[float, float]], epsilons: dict[str, float]) -> set[str]:
    """Names of parameters whose g is rounding, not a gradient.

    The gradients of one module come from the same gradient of its outputs, so those of its parameters are of like size, element by
    element; rounding is smaller by the machine's epsilon times how errors add up. The root mean square of g is compared with the
    largest of `.grad` (g and the penalties on activations, which g is a difference from) in its module, and the bound is the square
    root of epsilon. Measured in convolutions before BatchNorm: rounding up to 5e-5 and 4 % of the weights' in float32 and bfloat16, at a
    bound of 3e-4 and 9 %; other parameters from 24 % on.

    Args:
        sizes: By name, the root mean squares of g and of `.grad` before g was split off.
        epsilons: By name, that of the coarsest type that g was computed in.

    Returns:
        Names; none where every gradient is one.
    """
    largest: dict[str, float] = {}
    for name, pair in sizes.items():
        module = name.rpartition(".")[0]
        largest[module] = max(largest.get(module, 0.0), *pair)
    return {name for name, (size, _) in sizes.items() if size <= math.sqrt(epsilons[name]) * largest[name.rpartition(".")[0]]}


def _grads(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """`.grad` by name, made where there is none."""
    for parameter in parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return {name: p.grad for name, p in parameters.items() if p.grad is not None}


def _split_(totals: dict[str, Tensor], r: dict[str, Tensor], closed: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """g, written over `.grad`, and h of the parameters that a regulariser reaches."""
    _add_(totals, r, -1.0)
    return totals, closed | r | {name: r[name] + closed[name] for name in r.keys() & closed.keys()}


def _combine_(gs: dict[str, Tensor], hs: dict[str, Tensor], weights: dict[str, tuple[float, float]], strength: float) -> None:
    """a*g + b*h, written over g; parameters of equal weights together."""
    alike: dict[tuple[float, float], list[str]] = {}
    for name, pair in weights.items():
        alike.setdefault(pair, []).append(name)
    for (a, b), names in alike.items():
        if a != 1:
            torch._foreach_mul_([gs[name] for name in names], a)
        _add_(gs, {name: hs[name] for name in names if name in hs}, b * strength)


def _add_(to: dict[str, Tensor], these: dict[str, Tensor], factor: float = 1.0) -> None:
    if these:
        torch._foreach_add_([to[name] for name in these], list(these.values()), alpha=factor)


def _blocks(names: list[str], granularity: str) -> Iterator[list[str]]:
    """Names that count as one vector."""
    if granularity == "global":
        yield names
    elif granularity == "tensor":
        yield from ([name] for name in names)
    else:
        layers: dict[str, list[str]] = {}
        for name in names:
            layers.setdefault(name.rpartition(".")[0], []).append(name)
        yield from layers.values()


def _culprit(split: dict[str, tuple[Tensor, Tensor | None]], clock: Clock) -> str:
    for name, (g, h) in split.items():
        for whose, tensor in (("loss", g), ("regulariser", h)):
            if tensor is not None and not torch.isfinite(tensor).all():
                return f"the gradient of the {whose} is not finite in {name} at epoch {clock.epoch + 1}, step {clock.step + 1}; try a smaller learning rate or strength."
    return f"gradients are too large for a direction at epoch {clock.epoch + 1}, step {clock.step + 1}; try a smaller learning rate or strength."
