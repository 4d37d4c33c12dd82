"""Cyclic learning rate (label C4)."""

import pytest

from rekindle import Rifle
from rekindle.method import Clock
from rekindle.methods.restarts.cyclic_lr import CyclicLR
from tests.toys import run_epochs, toy, toy_tuner


def rates(method: CyclicLR, epochs: int, group: str = "head") -> list[float]:
    return [0.01 * method.lr_factor(group, Clock(epoch, epochs)) for epoch in range(epochs)]  # type: ignore[operator]


def test_c4_three_cycles_of_two_epochs() -> None:
    for group in ("head", "backbone"):
        assert rates(CyclicLR(cycles=3), 6, group) == pytest.approx([0.01, 0.005] * 3, abs=1e-15)


def test_the_last_cycle_takes_the_remainder_unless_the_run_is_trimmed() -> None:
    assert rates(CyclicLR(cycles=2), 5) == pytest.approx([0.01, 0.005, 0.01, 0.0075, 0.0025], abs=1e-15)
    assert CyclicLR(cycles=2).run_epochs(5) == 5 and CyclicLR(cycles=3, trim=True).run_epochs(40) == 39


def test_both_groups_of_an_optimiser_cycle_and_nothing_is_drawn() -> None:
    model, tuner, optimizer = toy_tuner([CyclicLR(cycles=2, trim=True)], epochs=5, steps=1)
    scheduler, seen = tuner.scheduler(optimizer), []
    head = model.fc.weight  # type: ignore[union-attr]
    for epoch in range(tuner.epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        run_epochs(model, tuner, optimizer, scheduler, range(epoch, epoch + 1))
        assert not tuner._restarted
    assert seen == [pytest.approx([rate, rate], abs=1e-15) for rate in (0.01, 0.005, 0.01, 0.005)]
    assert head is model.fc.weight  # type: ignore[union-attr]


def test_one_cycle_leaves_the_rate_to_the_schedule() -> None:
    assert CyclicLR(cycles=1).lr_factor("head", Clock(1, 4)) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cycles": 0}, "cycles must .*1 and .*, found 0"),
        ({"cycles": 2.0}, "found 2.0"),
        ({"cycles": True}, "found True"),
        ({"trim": 1}, "trim must .*True or False, found 1"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CyclicLR(**options)  # type: ignore[arg-type]


def test_too_many_cycles_and_two_owners_are_refused() -> None:
    with pytest.raises(ValueError, match="cyclic_lr: cycles must be at most the 8 epochs of the run, found 9"):
        toy_tuner([CyclicLR(cycles=9)])
    with pytest.raises(ValueError, match="both set the learning rate of the head"):
        toy_tuner([CyclicLR(), Rifle()], toy())
