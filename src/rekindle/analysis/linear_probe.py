"""A linear probe: the best linear classifier on features of a network that is not trained, the baseline of every fine-tuning.

Multinomial logistic regression by scikit-learn, its ridge chosen by stratified cross-validation on the log-loss, so that its
logits are calibrated: where training starts from them, the loss that it meets is that of new pictures.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rekindle.data.grouping import Part, allocate
from rekindle.errors import UserError
from rekindle.method import noop

STRENGTHS = np.logspace(0, -5, 6)  # Ridges on features of mean squared length 1 about their mean, beside a mean loss.
FOLDS = 5
ENOUGH = 1000  # Pictures that the ridge is chosen on.
USUAL = 1e-3  # The ridge where a class is too small for cross-validation.


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
        accuracy: In cross-validation, from 0 to 1; None where a class has a single picture.
        strength: The ridge that was chosen.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float | None
    strength: float

    def probabilities(self, features: Tensor) -> Tensor:
        """(N, C) of (N, D) features.

        Returns:
            (N, C), rows of sum 1.
        """
        return (features.double() @ self.weight.T + self.bias).softmax(1)


def mean_square(features: Tensor) -> float:
    """E||f||^2 of (N, D) features, which sets the pace at which a linear layer on them learns.

    Returns:
        A number of at least 0.

    Examples:
        >>> import torch
        >>> mean_square(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        12.5
    """
    return float(features.double().square().sum(1).mean())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices as small as these are multiplied faster by one thread than by several that wait for each other: six times, on two cores."""
    import sklearn.linear_model  # noqa: F401  Whose libraries are to be found.
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@_one_thread()
def fit_probe(features: Tensor, labels: Tensor, progress: Callable[..., None] = noop) -> LinearProbe:
    """Fit a probe.

    Args:
        features: (N, D).
        labels: (N,) from 0 to C - 1, each class at least once.
        progress: Told (what, done, total).

    Returns:
        Weight, bias, the ridge that was chosen, and the cross-validated accuracy.

    Raises:
        UserError: If features are not finite.
    """
    if not features.isfinite().all():
        raise UserError(
            "features are not finite, so no linear probe can be fitted to them; leave out the pictures or the network that gave them."
        )
    x, y = features.double(), labels.numpy()
    mean = x.mean(0)
    length = (x - mean).square().sum(1).mean().sqrt().clamp(min=1e-12)
    z, basis = _compressed((x - mean) / length)
    chosen, accuracy = _choose(z.numpy(), y, progress)
    weight, bias = _logistic(z.numpy(), y, chosen)
    if len(weight) == 1:  # Of two classes each gets half the logit, with opposite signs.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    whole = torch.from_numpy(weight) @ basis.T / length
    return LinearProbe(whole, torch.from_numpy(bias) - whole @ mean, accuracy, chosen)


def _compressed(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same pictures in coordinates of the space that they span, in which a ridge has the same solution, and its basis (D, R)."""
    if len(x) >= x.shape[1]:
        return x, torch.eye(x.shape[1], dtype=x.dtype)
    basis, coordinates = torch.linalg.qr(x.T)
    return coordinates.T.contiguous(), basis


def _choose(x: np.ndarray, y: np.ndarray, progress: Callable[..., None]) -> tuple[float, float | None]:
    """The ridge of the least log-loss in cross-validation, and the accuracy there."""
    from sklearn.model_selection import StratifiedKFold

    if len(x) > ENOUGH:
        kept = np.sort(np.random.default_rng(0).permutation(len(x))[:ENOUGH])
        x, y = x[kept], y[kept]
    folds = min(FOLDS, int(np.bincount(y)[np.unique(y)].min()))
    if folds < 2:
        return USUAL, None
    loss, hits = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    for number, (train, held) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y), 1):
        for place, model in enumerate(_path(x[train], y[train])):
            answers = model.predict_log_proba(x[held])
            columns = np.searchsorted(model.classes_, y[held])
            loss[place] -= answers[np.arange(len(held)), columns].sum()
            hits[place] += (answers.argmax(1) == columns).sum()
        progress("linear probe", number, folds)
    best = int(loss.argmin())
    return float(STRENGTHS[best]), float(hits[best] / len(x))


def _path(x: np.ndarray, y: np.ndarray):  # type: ignore[no-untyped-def]
    """The model at each ridge, each started from the one before."""
    model = _regression(len(x), STRENGTHS[0])
    for strength in STRENGTHS:
        model.C = 1 / (strength * len(x))
        yield _quiet(model, x, y)


def _logistic(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    model = _quiet(_regression(len(x), strength), x, y)
    return model.coef_, model.intercept_


def _regression(count: int, strength: float):  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / (strength * count), max_iter=200, warm_start=True)


def _quiet(model, x: np.ndarray, y: np.ndarray):  # type: ignore[no-untyped-def]
    """Fit; a solver that stops at its last iteration is near enough, and says so to nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y)


@_one_thread()
def out_of_fold(
    features: Tensor, labels: Tensor, repeats: int = 3, progress: Callable[..., None] = noop, groups: Sequence[str] | None = None
) -> np.ndarray:
    """(N, C) probabilities of each picture by probes that have not seen it, of a stratified cross-validation that is repeated and averaged.

    Args:
        features: (N, D).
        labels: (N,) from 0 to C - 1, each class at least twice, and in at least two groups.
        repeats: How often the pictures are divided anew; more are steadier.
        progress: Told (what, done, total).
        groups: Of each picture; none is in two folds. None takes each picture alone.

    Returns:
        (N, C) float64, rows of sum 1.

    Raises:
        UserError: If features are not finite.
    """
    strength = fit_probe(features, labels).strength  # Of one number for all pictures no label can be learnt by heart.
    x, y = features.double(), labels.numpy()
    x = x - x.mean(0)
    z = _compressed(x / x.square().sum(1).mean().sqrt().clamp(min=1e-12))[0].numpy()
    folds, found = min(FOLDS, int(np.bincount(y).max())), np.zeros((len(y), int(y.max()) + 1))
    for repeat in range(repeats):
        parts = _stratified(y, folds, repeat) if groups is None else _grouped(y, groups, folds, repeat)
        for number, (train, held) in enumerate(parts, 1):
            model = _quiet(_regression(len(train), strength), z[train], y[train])
            found[np.ix_(held, model.classes_)] += model.predict_proba(z[held]) / repeats
            progress("cross-validation", repeat * folds + number, repeats * folds)
    return found


def _stratified(y: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to train on and to hold out."""
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # A class with fewer pictures than folds is in some of them alone, as it should be.
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y))


def _grouped(y: np.ndarray, groups: Sequence[str], folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same with no group in two folds; a class of several groups is in several."""
    counts: dict[str, Counter[str]] = {}
    for group, label in zip(groups, y.tolist(), strict=True):
        counts.setdefault(group, Counter())[str(label)] += 1
    names = np.random.default_rng(seed).permutation(sorted(counts)).tolist()
    place = dict(zip(names, allocate([counts[name] for name in names], [Part(1 / folds)] * folds), strict=True))
    held = np.array([place[group] for group in groups])
    return [(np.flatnonzero(held != number), np.flatnonzero(held == number)) for number in range(folds) if (held == number).any()]
