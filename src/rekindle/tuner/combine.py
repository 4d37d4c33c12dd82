"""Combine the loss's gradient g with the regularisers' h along a direction, on what `.grad` holds when a step is due.

`.grad` is the sum g + r, r being the share of penalties on activations. A backward pass cannot tell the two apart, so
`GradientSeparator` lets a second one, through the penalties alone, collect r. A penalty on weights has a closed form c and needs no
second pass; then h = r + c.

Some parameters have a gradient of 0 whatever the data, such as the bias of a convolution before BatchNorm; what a backward pass gives
for them is rounding, whose direction is random, and no direction may be taken along it. See `rounding`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rekindle.errors import UserError
from rekindle.method import Clock, Direction


class GradientSeparator:
    """Collects r, the gradient of penalties on activations with respect to some parameters, during the backward pass.

    Args:
        parameters: By name.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._collected: dict[str, Tensor] = {}

    def join(self, task: Tensor, penalty: Tensor) -> Tensor:
        """Their sum, whose backward pass collects the penalty's share as well: twice the cost of the penalty's gradient."""
        total: Tensor = _Joined.apply(task, penalty, self)
        return total

    def collect(self, factor: Tensor, penalty: Tensor) -> None:
        """Add factor * d penalty / d parameters. `factor` carries accumulation, unequal shards and loss scaling."""
        trainable = {name: p for name, p in self._parameters.items() if p.requires_grad}
        with torch.enable_grad():
            found = torch.autograd.grad(penalty, list(trainable.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(trainable, found, strict=True):
            if gradient is not None:
                before = self._collected.get(name)
                self._collected[name] = gradient * factor if before is None else before + gradient * factor

    def take(self, scale: float) -> dict[str, Tensor]:
        """r by name, averaged over ranks and freed of the loss scale; then start anew."""
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
        """Means over the epoch, and the cosine of each step."""
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
    split = {name: _split(p, r.get(name), closed.get(name)) for name, p in parameters.items()}
    noise = rounding(parameters, {name: g for name, (g, _) in split.items()}, precision)
    products, conflicts = [], []
    for names in _blocks(list(parameters), direction.granularity):
        gs, hs = [split[name][0] for name in names], [split[name][1] for name in names]
        gg, gh, hh = _inner(gs, gs), strength * _inner(gs, hs), strength**2 * _inner(hs, hs)
        if not math.isfinite(gg + hh):
            if scaled:
                return
            raise UserError(_culprit({name: split[name] for name in names}, clock))
        if noise.issuperset(names):
            gg = gh = 0.0  # Nothing of the loss can be hurt there.
        a, b = direction.weights(gg, gh, hh)
        for name, g, h in zip(names, gs, hs, strict=True):
            _set_(parameters[name], a * g + (b * strength) * h if h is not None else a * g)
        products.append((gg, gh, hh))
        conflicts.append(gh < 0)
    gg, gh, hh = (sum(values) for values in zip(*products, strict=True))
    length = math.sqrt(gg) * math.sqrt(hh)
    angles.cosines.append(gh / length if length > 0 else 0.0)
    angles.conflicts.append(sum(conflicts) / len(conflicts))


def rounding(parameters: dict[str, nn.Parameter], gs: dict[str, Tensor], precision: torch.dtype = torch.float64) -> set[str]:
    """Names of parameters whose g is rounding, not a gradient.

    The gradients of one module come from the same gradient of its outputs, so those of its parameters are of like size, element by
    element; rounding is smaller by the machine's epsilon times how errors add up. The root mean square of g is compared with the
    largest of `.grad` (g and the penalties on activations, which g is a difference from) in its module, and the bound is the square
    root of epsilon. Measured in convolutions before BatchNorm: rounding up to 5e-5 and 4 % of the weights' in float32 and bfloat16, at a
    bound of 3e-4 and 9 %; other parameters from 24 % on.

    Args:
        parameters: By name; their `.grad` is g and r together.
        gs: g by name.
        precision: As in `combine_gradients_`.
    """
    sizes, totals = (
        _sizes(list(gs.values())),
        _sizes([g if parameters[name].grad is None else parameters[name].grad for name, g in gs.items()]),
    )
    largest: dict[str, float] = {}
    for name, size, total in zip(gs, sizes, totals, strict=True):
        module = name.rpartition(".")[0]
        largest[module] = max(largest.get(module, 0.0), size, total)
    coarse = {name: max(torch.finfo(g.dtype).eps, torch.finfo(precision).eps) for name, g in gs.items()}
    return {name for name, size in zip(gs, sizes, strict=True) if size <= math.sqrt(coarse[name]) * largest[name.rpartition(".")[0]]}


def _sizes(tensors: Sequence[Tensor | None]) -> list[float]:
    """Root mean square of each."""
    norms = [torch.linalg.vector_norm(t, dtype=torch.float64) / math.sqrt(max(t.numel(), 1)) for t in tensors if t is not None]
    return torch.stack(norms).tolist() if norms else []


def _split(parameter: nn.Parameter, r: Tensor | None, closed: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """g and h of one parameter; h is None where no regulariser reaches it."""
    total = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    g = total if r is None else total - r
    h = closed if r is None else r if closed is None else r + closed
    return g, h


def _set_(parameter: nn.Parameter, gradient: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = gradient.to(parameter.dtype)
    else:
        parameter.grad.copy_(gradient)


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


def _inner(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> float:
    """Inner product accumulated in float64; None is zero."""
    return float(
        sum(torch.dot(x.reshape(-1).double(), y.reshape(-1).double()) for x, y in zip(a, b, strict=True) if x is not None and y is not None)
    )


def _culprit(split: dict[str, tuple[Tensor, Tensor | None]], clock: Clock) -> str:
    for name, (g, h) in split.items():
        for whose, tensor in (("loss", g), ("regulariser", h)):
            if tensor is not None and not torch.isfinite(tensor).all():
                return f"the gradient of the {whose} is not finite in {name} at epoch {clock.epoch + 1}, step {clock.step + 1}; try a smaller learning rate or strength."
    return f"gradients are too large for a direction at epoch {clock.epoch + 1}, step {clock.step + 1}; try a smaller learning rate or strength."
