"""The scores against numbers worked out elsewhere, against definitions computed another way, and at their edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from rekindle.analysis import transferability
from rekindle.analysis.transferability import h_score, leep, logme

FEATURES = [[1, 0], [1, 0.5], [0, 1], [0.2, 1]]
THETA = [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6]]
Y = [0, 0, 1, 1]


def draw(count: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return rng.normal(size=(count, width)) + rng.normal(size=(classes, width))[labels], labels


def rotation(width: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def test_logme_of_four_points() -> None:
    assert logme(FEATURES, Y) == pytest.approx(-0.511008, abs=1e-4)
    left, singular, _ = np.linalg.svd(np.array(FEATURES), full_matrices=False)
    found = [transferability._evidence(left, singular**2, (np.array(Y) == label).astype(float)) for label in (0, 1)]
    assert found == pytest.approx([-0.301856, -0.720161], abs=1e-4)


def settled(features: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Precisions by the textbook's update with inverse matrices (Bishop, PRML, 3.90 to 3.95), to a fixed point."""
    alpha = beta = 1.0
    for _ in range(transferability.ROUNDS):
        before = alpha / beta
        curvature = alpha * np.eye(features.shape[1]) + beta * features.T @ features
        mean = beta * np.linalg.solve(curvature, features.T @ target)
        gamma = features.shape[1] - alpha * np.trace(np.linalg.inv(curvature))
        alpha = gamma / (mean @ mean + 1e-5)
        beta = (len(target) - gamma) / (((target - features @ mean) ** 2).sum() + 1e-5)
        if abs(alpha / beta - before) <= 1e-3 * before:
            break
    return alpha, beta


@pytest.mark.parametrize(("count", "width"), [(30, 4), (20, 60), (12, 12)])
def test_logme_is_the_density_of_the_labels(count: int, width: int) -> None:
    """The evidence is the density of t under N(0, I / beta + F F' / alpha): no log-determinant by hand. Also with N < D."""
    features, labels = draw(count, width, 3)
    wanted = []
    for label in range(3):
        target = (labels == label).astype(float)
        alpha, beta = settled(features, target)
        covariance = np.eye(count) / beta + features @ features.T / alpha
        wanted.append(multivariate_normal(np.zeros(count), covariance).logpdf(target) / count)
    assert logme(features, labels) == pytest.approx(np.mean(wanted), abs=2e-3)


def greatest(features: np.ndarray, target: np.ndarray) -> float:
    """The evidence a picture of t under N(0, s (I + r F F')), maximised: over s in closed form, over r on a fine grid and then by Brent."""
    values, vectors = np.linalg.eigh(features @ features.T / np.mean(features**2))
    squares, count = (vectors.T @ target) ** 2, len(target)

    def evidence(log_ratio: float) -> float:
        spread = 1 + np.exp(log_ratio) * values.clip(0)
        return float(-0.5 * (np.log(2 * np.pi * np.mean(squares / spread)) + 1 + np.log(spread).sum() / count))

    grid = np.linspace(-30, 12, 2001)
    best = int(np.argmax([evidence(x) for x in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found: float = minimize_scalar(lambda x: -evidence(x), bounds=(low, high), method="bounded").fun
    return -found


@pytest.mark.parametrize(("count", "width"), [(200, 8), (50, 16), (20, 60), (12, 12)])
def test_logme_does_not_depend_on_the_scale_of_the_features(count: int, width: int) -> None:
    """Also with N < D; and it is the greatest evidence, which is found directly."""
    features, labels = draw(count, width, 3)
    wanted = np.mean([greatest(features, (labels == label).astype(float)) for label in range(3)])
    found = [logme(scale * features, labels) for scale in (1, 30, 1000, 1e-3, -1, 1e8)]
    assert found == pytest.approx([found[0]] * 6, rel=1e-9, abs=1e-11)
    assert found[0] == pytest.approx(wanted, abs=2e-3)


def test_logme_with_fewer_pictures_than_features_is_no_praise_for_noise() -> None:
    """The authors' default code gives +4.8 to random features of this shape, for a term that it leaves out; right is about -0.9."""
    rng = np.random.default_rng(0)
    assert -1.5 < logme(rng.normal(size=(20, 60)), rng.integers(0, 2, 20)) < 0


def test_logme_knows_better_features() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 30)
    apart = np.eye(3)[labels] @ rng.normal(size=(3, 8)) * 3
    noise = rng.normal(size=(90, 8))
    assert logme(apart + 0.1 * noise, labels) > logme(apart + noise, labels) > logme(noise, labels)
    assert h_score(apart + 0.1 * noise, labels) > h_score(apart + noise, labels) > h_score(noise, labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 30), st.integers(1, 40), st.integers(2, 4), st.integers(0, 100))
def test_rotating_features_and_renaming_classes_changes_nothing(count: int, width: int, classes: int, seed: int) -> None:
    features, labels = draw(count, width, classes, seed)
    turned = features @ rotation(width, seed + 1)
    order = np.random.default_rng(seed).permutation(count)
    names = np.array([7, -3, 100, 40])[:classes]
    for score in (logme, h_score, lambda f, y: h_score(f, y, shrink=True)):
        wanted = score(features, labels)
        assert score(turned, labels) == pytest.approx(wanted, rel=1e-6, abs=1e-8)
        assert score(features[order], names[labels[order]]) == pytest.approx(wanted, rel=1e-6, abs=1e-8)


def test_leep_of_four_points() -> None:
    assert leep(THETA, Y) == pytest.approx(-0.471247906522, abs=1e-12)


def test_leep_of_certain_answers_is_the_conditional_entropy() -> None:
    """NCE of Tran et al. (ICCV 2019): -H(y | z)."""
    certain = np.eye(2)[[0, 0, 1, 1]]
    assert leep(certain, [0, 1, 1, 1]) == pytest.approx(-0.346573590280, abs=1e-12)
    assert leep(certain, Y) == 0


def test_leep_drops_answers_never_given() -> None:
    unused = np.insert(np.array(THETA), 1, 0.0, axis=1)
    assert leep(unused, Y) == pytest.approx(leep(THETA, Y), abs=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 100))
def test_leep_lies_between_chance_and_zero(count: int, answers: int, seed: int) -> None:
    """Answers that say nothing give minus the entropy of the labels; none is worse, since the conditional is fitted to them."""
    rng = np.random.default_rng(seed)
    theta, labels = rng.dirichlet(np.ones(answers), count), rng.integers(0, 3, count)
    shares = np.bincount(labels) / count
    entropy = -sum(p * math.log(p) for p in shares if p)
    assert -entropy - 1e-9 <= leep(theta, labels) <= 1e-12
    assert leep(np.full((count, answers), 1 / answers), labels) == pytest.approx(-entropy)


def test_leep_refuses_logits() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        leep([[2.0, -1.0], [0.5, 0.5]], [0, 1])


def test_h_score_by_hand() -> None:
    assert h_score([[0], [1], [1], [2]], Y) == pytest.approx(0.5, abs=1e-12)
    assert h_score([[0, 0], [1, 0], [0, 1], [3, 1]], Y) == pytest.approx(1.0, abs=1e-12)


def by_definition(features: np.ndarray, labels: np.ndarray, amount: float = 0.0) -> float:
    means = np.stack([features[labels == label].mean(0) for label in labels])
    width = features.shape[1]
    spread = np.cov(features.T, bias=True).reshape(width, width)
    shrunk = (1 - amount) * spread + amount * np.trace(spread) / width * np.eye(width)
    return (1 - amount) * np.trace(np.linalg.pinv(shrunk, hermitian=True) @ np.cov(means.T, bias=True).reshape(width, width))


@pytest.mark.parametrize(("count", "width"), [(40, 5), (10, 30), (12, 1)])
def test_h_score_is_the_trace_of_its_definition(count: int, width: int) -> None:
    from sklearn.covariance import ledoit_wolf

    features, labels = draw(count, width, 3)
    assert h_score(features, labels) == pytest.approx(by_definition(features, labels), rel=1e-6)
    amount = ledoit_wolf(features)[1]
    assert h_score(features, labels, shrink=True) == pytest.approx(by_definition(features, labels, amount), rel=1e-6)


def test_h_score_saturates_with_few_pictures_and_the_shrunk_one_does_not() -> None:
    noise = np.random.default_rng(2).normal(size=(20, 60))
    labels = np.arange(20) % 4
    assert h_score(noise, labels) == pytest.approx(3.0), "C - 1, though the features are noise"
    assert h_score(noise, labels, shrink=True) < 1.5


def test_h_score_does_not_change_with_scale_of_the_features() -> None:
    features, labels = draw(30, 6, 3)
    assert h_score(features * 7 + 3, labels) == pytest.approx(h_score(features, labels), rel=1e-9)
    assert h_score(features @ np.diag([1, 10, 100, 1, 1, 0.1]), labels) == pytest.approx(h_score(features, labels), rel=1e-6)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_features_that_never_change_say_nothing(width: int, value: float) -> None:
    features, labels = np.full((6, width), value), [0, 0, 0, 1, 1, 1]
    assert h_score(features, labels) == h_score(features, labels, shrink=True) == 0.0
    rng = np.random.default_rng(0)
    assert logme(features, labels) < logme(np.eye(2)[labels] + 0.01 * rng.normal(size=(6, 2)), labels)
    assert math.isfinite(logme(features, labels))


def test_a_class_of_one_picture_and_features_that_fit_perfectly_stay_finite() -> None:
    features, labels = [[1.0, 0], [1, 0], [0, 1]], [5, 5, 9]
    assert math.isfinite(logme(features, labels))
    assert h_score(features, labels) == pytest.approx(1.0)
    assert leep([[1.0, 0], [1, 0], [0, 1]], labels) == 0


@pytest.mark.parametrize("score", [logme, h_score])
def test_what_cannot_be_scored_is_named(score: object) -> None:
    assert callable(score)
    with pytest.raises(ValueError, match=r"only \[3\]"):
        score(FEATURES, [3, 3, 3, 3])
    with pytest.raises(ValueError, match="as many"):
        score(FEATURES, [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        score([[1.0], [float("nan")]], [0, 1])
    with pytest.raises(ValueError, match=r"shapes \(2,\)"):
        score([1.0, 2.0], [0, 1])
