"""Each check of the contract breaks on the fault that it is there for, and says where."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from rekindle import Direction, Method
from rekindle.cli import main
from rekindle.method import Batch, Clock, Net, Source
from rekindle.spec import NonNegative
from rekindle.testing import checks_of, run_check


@dataclass
class _Pull(Method):
    """Weight decay on the head that is right, for the others to be wrong in one place."""

    alpha: NonNegative = 0.1

    paper: ClassVar[str] = "nobody"
    neutral: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}

    def attach(self, net: Net, source: Source) -> None:
        self._parameters = list(net.head_parameters().values())

    def gradient(self, clock: Clock) -> Iterable[tuple[nn.Parameter, Tensor]]:
        return [(p, self.alpha * p.detach()) for p in self._parameters]

    def value(self, clock: Clock) -> Tensor:
        return 0.5 * self.alpha * torch.stack([p.square().sum() for p in self._parameters]).sum()


class _NotNeutral(_Pull):
    neutral: ClassVar[dict[str, Any] | None] = {"alpha": 0.2}


class _Nameless(_Pull):
    paper: ClassVar[str] = ""


class _GlobalDraw(_Pull):
    def restart_(self, clock: Clock, optimizer: torch.optim.Optimizer) -> bool:
        torch.rand(1)
        return False


class _Renames(_Pull):
    def surgery(self, net: Net, source: Source) -> None:
        net.model.stem = nn.Sequential(net.model.stem)


class _HalfGradient(_Pull):
    def gradient(self, clock: Clock) -> Iterable[tuple[nn.Parameter, Tensor]]:
        return [(p, 0.5 * self.alpha * p.detach()) for p in self._parameters]


class _Forgetful(_Pull):
    """What it counts stands in no checkpoint."""

    def attach(self, net: Net, source: Source) -> None:
        super().attach(net, source)
        self._steps = 0

    def gradient(self, clock: Clock) -> Iterable[tuple[nn.Parameter, Tensor]]:
        self._steps += 1
        return [(p, self.alpha * self._steps * p.detach()) for p in self._parameters]


class _Halves(_Pull):
    """Its penalty is that of a sum, not of a mean."""

    def penalty(self, batch: Batch) -> Tensor:
        return 0.01 * batch.outputs.square().sum()


class _Hooked(_Pull):
    """Its hook holds on to the network that it was made for."""

    def surgery(self, net: Net, source: Source) -> None:
        weight = net.model.stem.weight
        net.model.stem.register_forward_hook(lambda module, inputs, outputs: outputs + 0 * weight.sum())


class _Unbounded(_Pull):
    @property
    def draws_head(self) -> bool:
        return False

    def __post_init__(self) -> None:
        """No check of options."""


class _Diverges(_Pull):
    def gradient(self, clock: Clock) -> Iterable[tuple[nn.Parameter, Tensor]]:
        return [(p, torch.full_like(p, float("inf"))) for p in self._parameters]


FAULTS = [
    (_NotNeutral, "check_neutral", "differs from that of a plain run"),
    (_Nameless, "check_recipe", "paper"),
    (_GlobalDraw, "check_generator", "global generator has moved"),
    (_Renames, "check_keys", "stem.weight"),
    (_HalfGradient, "check_closed_form", "differ in fc.weight"),
    (_Forgetful, "check_resume", "belongs in state_dict"),
    (_Halves, "check_accumulation", "splits_batches"),
    (_Hooked, "check_copy", "gradients of its copy"),
    (_Diverges, "check_directions", "not finite"),
    (_Unbounded, "check_bad_options", "it takes alpha=nan"),
]


def outcomes(kind: Any) -> dict[str, tuple[str, str]]:
    return {check.__name__: (found.outcome, found.why) for check in checks_of(kind) for found in [run_check(check, kind)]}


@pytest.mark.parametrize(("kind", "check", "words"), FAULTS)
def test_a_fault_breaks_its_check(kind: type[Method], check: str, words: str) -> None:
    outcome, why = outcomes(kind)[check]
    assert outcome == "broken" and words in why


def test_one_without_a_fault_stands_them_all() -> None:
    assert {outcome for outcome, _ in outcomes(_Pull).values()} == {"ok"}


@dataclass(frozen=True)
class _Overflows(Direction):
    """It divides by what may be zero."""

    paper: ClassVar[str] = "nobody"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        return gh / gg, 1.0


def test_a_direction_that_divides_by_zero_is_broken() -> None:
    found = outcomes(_Overflows)
    assert found["check_finite"] == ("broken", "ZeroDivisionError: float division by zero")
    assert found["check_nothing_to_combine"][0] == "broken" and found["check_head"][0] == "ok"


def test_the_command_tells_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test-method", "pcgrad"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("ok       ") == len(checks_of(Direction)) and "pcgrad stands all" in printed
    assert main(["test-method", "pcgrat"]) == 2
    assert "did you mean pcgrad" in capsys.readouterr().err
