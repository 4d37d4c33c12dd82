"""Temperature and threshold against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rekindle.analysis.calibration import LEAST, at_temperature, fit_temperature
from rekindle.analysis.classification import mean_nll
from rekindle.analysis.familiarity import CONFIDENCE, NEAREST, Familiarity, familiarity


def drawn(count: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits that are too sharp by a known factor: labels are drawn from the probabilities at that temperature."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_of_two_classes_in_closed_form() -> None:
    """A logit of 2 that is right r times of n: the best confidence is the share r / n, with Platt's correction of the labels."""
    count, right = 100, 80
    logits = torch.tensor([[2.0, 0.0]]).repeat(count, 1)
    labels = torch.tensor([0] * right + [1] * (count - right))
    spread = 1 / (count + 2)
    share = (1 - spread) * right / count + spread * (count - right) / count
    assert fit_temperature(logits, labels) == pytest.approx(2 / math.log(share / (1 - share)), rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.2, 8), st.integers(LEAST, 60))
def test_no_answer_changes_and_the_loss_does_not_grow(seed: int, sharpness: float, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(count, 5, generator=generator)
    labels = torch.where(torch.rand(count, generator=generator) < 0.6, logits.argmax(1), torch.zeros(count, dtype=torch.long))
    temperature = fit_temperature(logits, labels)
    answers = at_temperature(logits, temperature)
    assert 0 < temperature < math.inf and torch.equal(answers.argmax(1), logits.argmax(1))
    assert mean_nll(answers, labels) <= mean_nll(logits.softmax(1), labels) + 0.1, "but for what the correction of the labels costs"


def test_few_pictures_have_temperature_1_and_right_ones_alone_do_not_make_it_0() -> None:
    logits = torch.tensor([[3.0, 0.0]]).repeat(LEAST, 1)
    labels = torch.zeros(LEAST, dtype=torch.long)
    assert fit_temperature(logits[1:], labels[1:]) == 1.0
    assert fit_temperature(logits, labels) == pytest.approx(3 / math.log(LEAST + 1), rel=1e-3)


def known(count: int) -> Familiarity:
    """One whose own pictures have the familiarities 1 to count, over count."""
    return Familiarity(torch.eye(3).half(), torch.arange(1, count + 1).double() / count)


@pytest.mark.parametrize(
    ("count", "share", "rank"), [(99, 0.05, 5), (100, 0.05, 5), (19, 0.05, 1), (12, 0.05, 1), (39, 0.5, 20), (1, 0.99, 1)]
)
def test_the_threshold_is_an_order_statistic(count: int, share: float, rank: int) -> None:
    assert known(count).threshold(share) == pytest.approx(rank / count)
    assert known(count).expected(share) == pytest.approx(rank / (count + 1))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.floats(0.001, 0.999))
def test_no_more_of_its_own_than_asked_where_pictures_suffice(count: int, share: float) -> None:
    expected = known(count).expected(share)
    assert expected <= share + 1e-6 or expected == pytest.approx(1 / (count + 1))


def test_familiarity_by_hand() -> None:
    """Cosine 0.6 to the one picture that is known, 0 to the others; and half a confidence."""
    directions = torch.cat([torch.eye(NEAREST), torch.zeros(1, NEAREST)]).half()
    found = familiarity(directions, torch.tensor([[3.0, 4.0, *[0.0] * (NEAREST - 2)]]), torch.tensor([[0.5, 0.5]]))
    assert float(found) == pytest.approx((0.6 + 0.8) / NEAREST + CONFIDENCE * math.log(0.5), abs=1e-6)


def test_lengths_of_features_do_not_count() -> None:
    generator = torch.Generator().manual_seed(1)
    training, new, answers = torch.randn(9, 6, generator=generator), torch.randn(4, 6, generator=generator), torch.full((4, 2), 0.5)
    one, other = (Familiarity.learn(scale * training, new, answers) for scale in (1.0, 50.0))
    assert torch.allclose(one.of(new, answers), other.of(7 * new, answers), atol=1e-3)
