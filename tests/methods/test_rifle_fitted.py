"""RIFLE that restarts when it can pay: not before the network has fitted its pictures, nor where a fresh head lacks the steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rekindle import Rifle, Tuner
from rekindle.methods.restarts._fitted import steps_of_a_fresh_head
from rekindle.tuner.head_rate import head_rate

STEPS, BATCH = 4, 8


def blobs(spread: float, count: int = STEPS * BATCH) -> tuple[Tensor, Tensor]:
    """Two classes, 6 apart; those of a large spread cannot be told apart."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    return torch.randn(count, 6, generator=stream) * spread + 6.0 * labels[:, None], labels


class Run:
    """A small network in the plain loop."""

    def __init__(self, spread: float, epochs: int, lr: float = 0.05, **options: Any) -> None:
        torch.manual_seed(0)
        self.x, self.y = blobs(spread)
        self.model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
        self.rifle = Rifle(when="fitted", **options)
        self.tuner = Tuner(self.model, [self.rifle], head="2", epochs=epochs, steps_per_epoch=STEPS, seed=1)
        self.optimizer = torch.optim.SGD(self.tuner.param_groups(lr), momentum=0.9)
        self.scheduler = self.tuner.scheduler(self.optimizer)
        self.drawn: list[int] = []
        self.rates: list[float] = []

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.x.split(BATCH), self.y.split(BATCH), strict=True)

    def train(self, last: int | None = None) -> "Run":
        self.tuner.prepare(self.batches)
        for epoch in range(self.tuner._epoch + 1, self.tuner.epochs if last is None else last):
            if self.tuner.start_epoch(epoch):
                self.drawn.append(epoch)
            self.rates.append(self.optimizer.param_groups[1]["lr"])
            for x, y in self.batches():
                self.tuner.loss(self.model, x, y, nn.functional.cross_entropy).backward()
                self.tuner.gradients_()
                self.optimizer.step()
                self.optimizer.zero_grad()
            self.scheduler.step()
        return self


def test_a_fitted_network_gets_a_fresh_head_and_its_rate_starts_anew() -> None:
    run = Run(0.1, 40).train()
    [first] = run.drawn
    assert 0 < first < 39
    assert run.rates[first] == pytest.approx(0.05) and run.rates[first - 1] < run.rates[first]
    assert run.rates[-1] < 1e-3 and run.rifle.summary(40) is None


@pytest.mark.parametrize("periods", [2, 3, 4])
def test_there_are_at_most_as_many_draws_as_periods_have_beginnings(periods: int) -> None:
    assert len(Run(0.1, 60, periods=periods).train().drawn) == periods - 1


def test_a_network_that_does_not_fit_is_fine_tuned_plainly_and_says_so() -> None:
    run, plain = Run(50.0, 10).train(), Run(50.0, 10, periods=1).train()
    assert run.drawn == []
    assert all(torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), plain.model.state_dict().values(), strict=True))
    said = run.rifle.summary(10)
    assert said is not None and "98%" in said and "10" in said


def test_no_draw_without_the_steps_that_a_fresh_head_needs() -> None:
    """At a rate of next to nothing a fresh head would never learn; the start fits because the network was trained before."""
    run = Run(0.1, 12, lr=1e-7)
    trained = Run(0.1, 30, periods=1).train()
    run.model.load_state_dict(trained.model.state_dict())
    run.train()
    assert run.drawn == []
    said = run.rifle.summary(12)
    assert said is not None and "steps" in said


def test_it_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = Run(0.1, 40).train()
    for stop in (whole.drawn[0], whole.drawn[0] + 1, 30):
        first, second = Run(0.1, 40).train(stop), Run(0.1, 40)
        for name in ("model", "optimizer", "scheduler", "tuner"):
            getattr(second, name).load_state_dict(getattr(first, name).state_dict())
        second.train()
        assert all(torch.equal(a, b) for a, b in zip(second.model.state_dict().values(), whole.model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "option", [{"unit": "step"}, {"period": 3}, {"trim": True}, {"shape": "full"}, {"preset": "paper_code"}, {"reinitialize": False}]
)
def test_it_chooses_its_own_epochs(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="when='fitted'"):
        Rifle(when="fitted", **option)


def test_steps_of_a_fresh_head_follow_its_rate() -> None:
    """Where kappa is ten times smaller, a head takes about ten times as long."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 10
    features = torch.randn(400, 64, generator=stream) + 1.5 * torch.randn(10, 64, generator=stream)[labels]
    rate = head_rate(float(features.square().sum(1).mean()))
    steps = [steps_of_a_fresh_head(features, labels, rate / slower, 0.9, 5000) for slower in (1, 10, 100)]
    assert steps[0] <= 20 and 3 <= steps[1] / steps[0] <= 30 and 4 <= steps[2] / steps[1] <= 20
    assert steps_of_a_fresh_head(1000 * features, labels, rate / 1e6, 0.9, 5000) == pytest.approx(steps[0], abs=2)
