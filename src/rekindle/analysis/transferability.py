"""How well a pre-trained network suits a labelled set, guessed from one pass over it, without training.

Three scores, each higher for a better guess. They compare networks on one set of pictures; their values mean nothing across sets.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rekindle.errors import agree, number_of
from rekindle.method import require

Floats = NDArray[np.float64]
ROUNDS = 11
ENOUGH = 1e-3
FLOOR = 1e-5  # Keeps a perfect fit finite; the authors' value, but for features of root mean square 1.
SUM_ERROR = 1e-3


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """Log of the maximum evidence a picture, in nats: how well a Bayesian linear model explains each class against the rest.

    You, Liu, Wang, Long: LogME, ICML 2021 (arXiv 2102.11005), algorithm 1. For each class the precision alpha of the weights and
    beta of the noise are chosen by at most 11 fixed-point steps. Half the log-determinant, D/2 log(alpha) - 1/2 log|A|, is
    computed as -1/2 sum log(1 + beta sigma / alpha), in which the directions without features cancel; the authors' code leaves
    them out of one of the two terms, and so is wrong where there are fewer pictures than features. The evidence does not depend on the
    features' scale, so they are brought to root mean square 1; in the authors' code the steps' start and the floor under the squared
    weights do depend on it, and long features are wrong.

    Args:
        features: (N, D) activations before the classifier, neither centred nor scaled.
        labels: (N,) classes, any integers; at least two different ones.

    Returns:
        The mean over classes. It does not change when the features are rotated, or all multiplied by one number.

    Raises:
        ValueError: If shapes disagree, a feature is not finite, or there is one class only.
    """
    f, y = _checked(features, labels)
    left, singular, _ = np.linalg.svd(f, full_matrices=False)
    keep = singular > _tolerance(singular, f.shape)
    sigma, left = singular[keep] ** 2, left[:, keep]
    sigma = sigma * (f.size / sigma.sum()) if len(sigma) else sigma
    return float(np.mean([_evidence(left, sigma, (y == label).astype(np.float64)) for label in range(y.max() + 1)]))


def _evidence(left: Floats, sigma: Floats, target: Floats) -> float:
    """Maximum log-evidence a picture of one target; `left` (N, k) and `sigma` (k,) are singular vectors and squared values."""
    count = len(target)
    inside = (left.T @ target) ** 2
    outside = max(float(target @ target - inside.sum()), 0.0)
    ratio, alpha, beta = 1.0, 1.0, 1.0
    for _ in range(ROUNDS):
        gamma = float((sigma / (sigma + ratio)).sum())
        size = float((sigma * inside / (ratio + sigma) ** 2).sum())
        error = float((inside / (1 + sigma / ratio) ** 2).sum()) + outside
        alpha, beta = gamma / (size + FLOOR), (count - gamma) / (error + FLOOR)
        before, ratio = ratio, alpha / beta
        if not len(sigma) or abs(ratio - before) <= ENOUGH * before:
            break
    fit = count * np.log(beta) - beta * error - alpha * size - count * np.log(2 * np.pi)
    return float(0.5 * (fit - np.log1p(sigma / ratio).sum()) / count if len(sigma) else 0.5 * fit / count)


def leep(source_probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean log-likelihood of the labels, in nats, when they are told from the source classifier's answers alone; at most 0.

    Nguyen, Hassner, Seeger, Archambeau: LEEP, ICML 2020 (arXiv 2002.12462), equation 2. Source classes that are never given any
    probability are dropped. Where the answers are certain, it is minus the conditional entropy of the label given the answer.

    Args:
        source_probabilities: (N, C_s), rows summing to 1.
        labels: (N,) classes, any integers.

    Returns:
        Nats a picture, at most 0.

    Raises:
        ValueError: If shapes disagree, or a row is no distribution.

    Examples:
        >>> import torch
        >>> round(leep(torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])), 3)
        0.0
    """
    theta, y = _checked(source_probabilities, labels, least=1)
    fair = bool((theta >= 0).all() and (np.abs(theta.sum(1) - 1) <= SUM_ERROR).all())
    require(fair, "leep needs probabilities: rows of numbers from 0 that sum to 1.")
    theta = theta[:, theta.sum(0) > 0]
    joint = _members(y).T @ theta
    conditional = joint / joint.sum(0)
    return float(np.log((conditional[y] * theta).sum(1)).mean())


def h_score(features: ArrayLike, labels: ArrayLike, shrink: bool = False) -> float:
    """How far the class means of the features are apart, against the spread of all; from 0 to min(C - 1, D).

    Bao et al.: An information-theoretic approach to transferability in task transfer learning, ICIP 2019: the trace of
    pinv(cov(f)) cov(E[f | y]). That is the squared length of the classes' centred indicators inside the span of the features,
    which is how it is computed. With as many features as pictures every set reaches C - 1; `shrink` is for those: both the
    covariance and the result are shrunk as Ledoit and Wolf choose (Ibrahim, Ponomareva, Mazumder, ECML 2022, arXiv 2110.06893).

    Args:
        features: (N, D) activations before the classifier.
        labels: (N,) classes, any integers; at least two different ones.
        shrink: (1 - a) tr(inv(cov_a) cov(E[f | y])), with cov_a = (1 - a) cov + a tr(cov)/D I.

    Returns:
        A number from 0 to the number of classes - 1.

    Raises:
        ValueError: As `logme`.
    """
    f, y = _checked(features, labels)
    f = f - f.mean(0)
    members = _members(y)
    sizes = members.sum(0)
    left, singular, right = np.linalg.svd(f, full_matrices=False)
    keep = singular > _tolerance(singular, f.shape)
    if not keep.any():
        return 0.0
    if not shrink:
        return float((((left[:, keep].T @ members) ** 2).sum(0) / sizes).sum())
    from sklearn.covariance import ledoit_wolf_shrinkage

    amount = float(ledoit_wolf_shrinkage(f, assume_centered=True))
    variances = singular[keep] ** 2 / len(f)
    shrunk = (1 - amount) * variances + amount * variances.sum() / f.shape[1]
    means = (members.T @ f / sizes[:, None]) @ right[keep].T
    return float((1 - amount) * (sizes[:, None] / len(f) * means**2 / shrunk).sum())


def _checked(values: ArrayLike, labels: ArrayLike, least: int = 2) -> tuple[Floats, NDArray[np.int64]]:
    """(N, D) float64 and (N,) labels renumbered from 0, so that none is empty."""
    found, y = np.asarray(values, np.float64), np.asarray(labels)
    require(found.ndim == 2 and y.ndim == 1, f"wanted are (N, D) values and (N,) labels, found shapes {found.shape} and {y.shape}.")
    require(
        len(found) == len(y) > 0,
        f"there {agree(len(found), 'is')} {number_of(len(found), 'row')} of values and {number_of(len(y), 'label')}; wanted are as many, at least one.",
    )
    require(bool(np.isfinite(found).all()), "a value is not finite.")
    classes, renumbered = np.unique(y, return_inverse=True)
    require(len(classes) >= least, f"the score compares classes, and the labels have only {classes.tolist()}.")
    return found, renumbered


def _members(labels: NDArray[np.int64]) -> Floats:
    """(N, C): 1 where the picture is of the class."""
    return np.eye(int(labels.max()) + 1)[labels]


def _tolerance(singular: Floats, shape: tuple[int, ...]) -> float:
    """Below it a singular value is rounding; the rule of numpy's `matrix_rank`."""
    return float(singular.max(initial=0.0) * max(shape) * np.finfo(np.float64).eps)
