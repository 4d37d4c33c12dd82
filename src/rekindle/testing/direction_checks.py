"""What every direction has to stand."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rekindle.method import Clock, Direction
from rekindle.methods.penalties.l2_sp import L2SP
from rekindle.registry import describe, parse_direction
from rekindle.testing.method_checks import reads_back, resumes
from rekindle.testing.network import Loop
from rekindle.testing.verdict import Skipped, expect
from rekindle.tuner.combine import ConflictStats, combine_gradients_

SCALES = [10.0**power for power in (-15, -6, 0, 6, 15)]


def check_recipe(kind: type[Direction]) -> None:
    """Its repr and its recipe give an equal object, and it names a paper."""
    direction = kind()
    reads_back(direction, describe(direction), parse_direction)


def check_finite(kind: type[Direction]) -> None:
    """Its step is finite for gradients of any size, in conflict or not, and where one of them is zero."""
    for g, h in _pairs():
        for scale_g, scale_h in itertools.product(SCALES, SCALES):
            loss, regulariser = scale_g * g, scale_h * h
            a, b = kind().weights(float(loss @ loss), float(loss @ regulariser), float(regulariser @ regulariser))
            expect(
                torch.isfinite(a * loss + b * regulariser).all() and max(abs(a), abs(b)) < torch.finfo(torch.float32).max,
                f"for gradients of length {float(loss.norm()):.0e} and {float(regulariser.norm()):.0e} its weights are {a:.3g} and {b:.3g}",
            )


def check_nothing_to_combine(kind: type[Direction]) -> None:
    """Where the regulariser has no gradient, the step is the loss's."""
    a, _ = kind().weights(2.0, 0.0, 0.0)
    expect(a == 1.0, f"with <g,g> = 2 and h = 0 the weight of g is {a:.3g}")


def check_training(kind: type[Direction]) -> None:
    """A run along it has finite weights, and notes one cosine a step."""
    loop = Loop([L2SP(alpha=0.1)], direction=kind(), epochs=2)
    expect(all(torch.isfinite(value).all() for value in loop.run().values()), "a weight is not finite after six steps")
    found = loop.tuner.conflict_stats()
    expect(found is None or len(found["cosines"]) == 3, "three steps have not noted three cosines")


def check_resume(kind: type[Direction]) -> None:
    """A run that is stopped and resumed, within an epoch or between two, ends in the same bits."""
    resumes(lambda model, keep_at: Loop([L2SP(alpha=0.1)], model, direction=kind(), keep_at=keep_at))


def check_head(kind: type[Direction]) -> None:
    """Parameters that the source does not have get the plain sum, whatever the rule."""
    steps = []
    for direction in (None, kind()):
        loop = Loop([L2SP(alpha=0.3)], direction=direction, epochs=1, steps=1)
        with torch.no_grad():
            for p in loop.model.parameters():
                p.add_(0.1)
        steps.append(loop.run()["fc.weight"])
    expect(torch.allclose(steps[0], steps[1], rtol=1e-6, atol=1e-7), "the new layer is moved otherwise than by the plain sum")


def check_blocks(kind: type[Direction]) -> None:
    """It takes every granularity, and leaves finite gradients for each."""
    for grain in ("global", "layer", "tensor"):
        try:
            direction = kind(granularity=grain)  # type: ignore[call-arg]
        except TypeError:
            raise Skipped("it has no option granularity") from None
        parameters = {name: nn.Parameter(torch.zeros(3)) for name in ("a.weight", "a.bias", "b.weight")}
        for number, p in enumerate(parameters.values()):
            p.grad = torch.tensor([1.0, -number, 0.5])
        closed = {name: -0.5 * p.grad + 0.1 for name, p in parameters.items() if p.grad is not None}
        with torch.no_grad():
            combine_gradients_(parameters, {}, closed, direction, Clock(0, 2), ConflictStats())
        expect(all(math.isfinite(float(p.grad.sum())) for p in parameters.values() if p.grad is not None), f"not with {grain}")


def _pairs() -> list[tuple[Tensor, Tensor]]:
    """(g, h) of five elements: at random, straight against each other, and one of them zero."""
    stream = torch.Generator().manual_seed(0)
    found: list[tuple[Tensor, Tensor]] = []
    for _ in range(4):
        g, h = (torch.randn(5, generator=stream, dtype=torch.float64) for _ in range(2))
        found += [(g, h), (g, -g), (g, 0 * g), (0 * g, g)]
    return found


DIRECTION_CHECKS: list[Callable[[Any], None]] = [
    check_recipe, check_finite, check_nothing_to_combine, check_training, check_resume, check_head, check_blocks,
]  # fmt: skip
