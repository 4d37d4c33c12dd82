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
UNKNOWN = -30.0  # Logit of a class that a probe has not seen.
USUAL = 1e-3  # The ridge where a class is too small for cross-validation.


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
        accuracy: In cross-validation, from 0 to 1; None where a class has a single picture.
        strength: The ridge that was chosen.
        loss: Log-loss in cross-validation, at least 0; None where there was none.
    """

    weight: Tensor
    bias: Tensor
    accuracy: float | None
    strength: float
    loss: float | None = None

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
    y, space = labels.numpy(), _Space(features)
    chosen, accuracy, loss = _choose(space.coordinates, y, progress)
    return LinearProbe(*space.fitted(slice(None), y, chosen), accuracy, chosen, loss)


@_one_thread()
def unseen_halves(features: Tensor, labels: Tensor, strength: float, seed: int) -> list[tuple[Tensor, LinearProbe]]:
    """The halves of a stratified division, each with the probe of the other half, to which its pictures are new.

    Args:
        features: (N, D).
        labels: (N,) from 0 to C - 1, each class at least once.
        strength: The ridge.
        seed: Of the division.

    Returns:
        [(rows of a half in random order, probe)]; pictures of classes that the other half lacks are left out, and a half without any.
    """
    y, space, found = labels.numpy(), _Space(features), []
    for rest, half in _stratified(y, 2, seed) if np.bincount(y).max() > 1 else ():
        known = np.unique(y[rest])
        rows = np.random.default_rng(seed).permutation(half[np.isin(y[half], known)])
        if len(known) < 2 or not len(rows):
            continue
        classes = int(y.max()) + 1
        weight, bias = torch.zeros(classes, features.shape[1]).double(), torch.full((classes,), UNKNOWN).double()
        weight[known], bias[known] = space.fitted(rest, y[rest], strength)
        found.append((torch.from_numpy(rows), LinearProbe(weight, bias, None, strength)))
    return found


class _Space:
    """Features about their mean, of mean squared length 1, in coordinates of the space that they span.

    Args:
        features: (N, D), finite.
    """

    def __init__(self, features: Tensor) -> None:
        x = features.double()
        self._mean = x.mean(0)
        self._length = (x - self._mean).square().sum(1).mean().sqrt().clamp(min=1e-12)
        z, self._basis = _compressed((x - self._mean) / self._length)
        self.coordinates = z.numpy()

    def fitted(self, rows: "slice | np.ndarray", y: np.ndarray, strength: float) -> tuple[Tensor, Tensor]:
        """Weight (K, D) and bias (K,) for the features themselves, of the K classes that these rows have."""
        weight, bias = _logistic(self.coordinates[rows], y, strength)
        if len(weight) == 1:  # Of two classes each gets half the logit, with opposite signs.
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        whole = torch.from_numpy(weight) @ self._basis.T / self._length
        return whole, torch.from_numpy(bias) - whole @ self._mean


def _compressed(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same pictures in coordinates of the space that they span, in which a ridge has the same solution, and its basis (D, R)."""
    if len(x) >= x.shape[1]:
        return x, torch.eye(x.shape[1], dtype=x.dtype)
    basis, coordinates = torch.linalg.qr(x.T)
    return coordinates.T.contiguous(), basis


def _choose(x: np.ndarray, y: np.ndarray, progress: Callable[..., None]) -> tuple[float, float | None, float | None]:
    """The ridge of the least log-loss in cross-validation, and the accuracy and the loss there."""
    from sklearn.model_selection import StratifiedKFold

    if len(x) > ENOUGH:
        kept = np.sort(np.random.default_rng(0).permutation(len(x))[:ENOUGH])
        x, y = x[kept], y[kept]
    folds = min(FOLDS, int(np.bincount(y)[np.unique(y)].min()))
    if folds < 2:
        return USUAL, None, None
    loss, hits = np.zeros(len(STRENGTHS)), np.zeros(len(STRENGTHS))
    for number, (train, held) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y), 1):
        for place, model in enumerate(_path(x[train], y[train])):
            answers = model.predict_log_proba(x[held])
            columns = np.searchsorted(model.classes_, y[held])
            loss[place] -= answers[np.arange(len(held)), columns].sum()
            hits[place] += (answers.argmax(1) == columns).sum()
        progress("linear probe", number, folds)
    best = int(loss.argmin())
    return float(STRENGTHS[best]), float(hits[best] / len(x)), float(loss[best] / len(x))


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
    z, y = _Space(features).coordinates, labels.numpy()
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
