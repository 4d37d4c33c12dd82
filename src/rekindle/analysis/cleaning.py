"""What looks wrong in a labelled set, by the features of a pre-trained network: labels, outliers and near duplicates."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rekindle.analysis.linear_probe import out_of_fold
from rekindle.data import Picture
from rekindle.errors import UserError
from rekindle.method import noop

Kind = Literal["label", "outlier", "duplicate"]
IMPROBABLE = 0.05  # A label less probable than this looks wrong, also where too few do so for an estimate of how many are.
READ = 0.1875  # Of all pictures, at most so many labels are named: 30 of 160.
NEIGHBOURS = 10  # That an outlier is far from.
FAR = 2.0  # Times the usual distance to neighbours, from which on a picture is an outlier.
NEAR = 0.2  # Cosine distance of features up to which two pictures are compared as pictures: a copy of half the size is that far.
ALIKE = 0.985  # Correlation of two small grey pictures from which on they are one; two white shirts hung alike reach 0.983.
EDGE = 16  # Of those.
TINY = 1e-12
BLOCK = 2048  # Pictures whose distances are in memory at a time.
KEPT_FIRST = ("test", "val", "train")  # Of equal pictures that in the split which stands for new ones is kept.


@dataclass(frozen=True)
class Issue:
    """One thing about one picture.

    Attributes:
        path: Its name; see `rekindle.data.Dataset.relative`.
        split: Where it stands.
        kind: "label", "outlier" or "duplicate".
        label: Its class.
        suggestion: Of a label that looks wrong, the class that it looks like; of a duplicate, the picture that it repeats; else "".
        score: How sure that is, from 0 to 1: the probability of the suggestion, how far from its neighbours an outlier is (0.5 is
            twice as far as usual), the correlation with the picture that is repeated.
    """

    path: str
    split: str
    kind: Kind
    label: str
    suggestion: str
    score: float


@dataclass(frozen=True)
class Cleaning:
    """What was found.

    Attributes:
        data: What was looked at.
        model: The network whose features were used.
        classes: In the order of their labels.
        counts: {split: pictures}.
        issues: Labels first, then outliers, then duplicates; each kind with the surest first.
        unjudged: Classes of a single picture, or group of pictures, whose labels nothing can be said about.
        judges: The folder of the cross-validation by whose networks labels were judged; "" where linear probes on the features did it.
        pictures: By name, those of the issues and what they repeat.
    """

    data: str
    model: str
    classes: list[str]
    counts: dict[str, int]
    issues: list[Issue]
    unjudged: list[str]
    judges: str
    pictures: dict[str, Picture] = field(repr=False)

    def of(self, kind: Kind) -> list[Issue]:
        """Those of one kind.

        Returns:
            The issues, the surest first.
        """
        return [issue for issue in self.issues if issue.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures themselves.

        Returns:
            Plain values, as `rekindle data clean --json` prints them.
        """
        facts = {name: value for name, value in vars(self).items() if name not in ("pictures", "issues")}
        return {**facts, "issues": [asdict(issue) for issue in self.issues]}


def label_errors(
    features: Tensor, labels: Tensor, progress: Callable[..., None] = noop, groups: Sequence[str] | None = None
) -> list[tuple[int, int, float]]:
    """Labels that look wrong by confident learning on what linear probes say of pictures that they have not seen.

    Args:
        features: (N, D).
        labels: (N,); those of classes with a single picture, or group of them, are not judged.
        progress: Told (what, done, total).
        groups: Of each picture; no probe judges pictures of a group that it has seen. None takes each picture alone.

    Returns:
        (row, class that it looks like, probability of that), the least probable label first.

    Raises:
        UserError: If cleanlab is not installed, or features are not finite.
    """
    _cleanlab()
    judged, given = _judged(labels, groups)
    kept = None if groups is None else [groups[row] for row in judged.tolist()]
    found = out_of_fold(features[judged], given, progress=progress, groups=kept) if len(given.unique()) > 1 else None
    return [] if found is None else _improbable(found, labels, groups)


def improbable_labels(probabilities: Tensor, labels: Tensor) -> list[tuple[int, int, float]]:
    """Labels that look wrong, as `label_errors`, by probabilities (N, C) from networks that have not seen the pictures.

    Returns:
        (row, suggested class, score) of each, the surest first.
    """
    judged, given = _judged(labels)
    answers = probabilities.double()[judged][:, labels[judged].unique()]
    return _improbable((answers / answers.sum(1, keepdim=True).clamp(min=TINY)).numpy(), labels) if len(given.unique()) > 1 else []


def members(labels: Tensor, groups: Sequence[str] | None, classes: int = 0) -> Tensor:
    """How many pictures, or groups of them, each class has; of at least so many classes.

    Returns:
        (C,) counts.
    """
    if groups is None:
        return torch.bincount(labels, minlength=classes)
    return torch.bincount(torch.tensor([label for label, _ in sorted(set(zip(labels.tolist(), groups, strict=True)))]), minlength=classes)


def _judged(labels: Tensor, groups: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Rows whose class has more than one picture, or group of them, and the place of that class among such classes."""
    judged = torch.nonzero(members(labels, groups)[labels] > 1).flatten()
    return judged, labels[judged].unique(return_inverse=True)[1]


def _improbable(answers: np.ndarray, labels: Tensor, groups: Sequence[str] | None = None) -> list[tuple[int, int, float]]:
    judged, given = _judged(labels, groups)
    classes = labels[judged].unique()
    own, best = answers[np.arange(len(answers)), given], answers.argmax(1)
    least = np.argsort(own, kind="stable")
    count = max(how_many(_estimate(answers, given.numpy()), len(own)), int((own < IMPROBABLE).sum()))
    named = [row for row in least[:count] if best[row] != given[row]]
    return [(int(judged[row]), int(classes[best[row]]), float(answers[row, best[row]])) for row in named]


def _estimate(answers: np.ndarray, given: np.ndarray) -> int:
    """How many labels are wrong, by cleanlab's confident learning."""
    filters, _ = _cleanlab()
    # The least probable labels found more wrong ones than its other filters, so it is asked for their number alone.
    return int(filters.find_label_issues(given, answers, filter_by="low_self_confidence", n_jobs=1).sum())


def how_many(estimate: int, pictures: int) -> int:
    """How many of the least probable labels are worth a look.

    An estimate from few pictures is as often too low as too high, and a wrong label that is missed costs more than a right one that is
    looked at: so a quarter more than the estimate, but for that no more than people read, which is `READ` of all. Where the estimate
    itself says that over a quarter is wrong, it is believed.

    Returns:
        A count, at most that of the pictures.
    """
    return estimate if estimate > pictures / 4 else min(round(1.25 * estimate), round(READ * pictures))


def outliers(features: Tensor) -> list[tuple[int, float]]:
    """(row, score) of pictures that are far from all others, the farthest first; none among too few pictures to say so.

    Returns:
        Rows with a score, the farthest first.
    """
    _, outlier = _cleanlab()
    if len(features) <= 2 * NEIGHBOURS:
        return []
    judge = outlier.OutOfDistribution({"k": NEIGHBOURS})
    scores = np.clip(judge.fit_score(features=features.numpy(), verbose=False), TINY, None)
    distances = -np.log(scores)  # In units of the usual one.
    usual = np.median(distances)
    far = np.flatnonzero(distances > FAR * usual)
    return [(int(row), float(1 - usual / distances[row])) for row in far[np.argsort(-distances[far], kind="stable")]]


def near_duplicates(features: Tensor, small: np.ndarray, splits: Sequence[str]) -> list[list[tuple[int, float]]]:
    """Groups of pictures that are one, saved anew, resized, turned brighter or mirrored; of any splits.

    Args:
        features: (N, D), which say what is worth comparing.
        small: (N, 16, 16), the pictures in grey; see `small_grey`.
        splits: Of each picture.

    Returns:
        [(row, correlation with the first), ...] of each group. The first is the one to keep: of a test split if there is one,
        since a picture that was trained on says nothing there.
    """
    left, right = _standardized(small), _standardized(small[:, :, ::-1])
    group = list(range(len(features)))
    for one, other in _near_pairs(features):
        if max(left[one] @ left[other], left[one] @ right[other]) >= ALIKE:
            _join(group, one, other)
    together: dict[int, list[int]] = {}
    for row in range(len(group)):
        together.setdefault(_root(group, row), []).append(row)
    found = []
    for rows in together.values():
        if len(rows) > 1:
            first, *rest = sorted(rows, key=lambda row: (KEPT_FIRST.index(splits[row]), row))
            found.append([(first, 1.0), *((row, float(max(left[first] @ left[row], left[first] @ right[row]))) for row in rest)])
    return sorted(found, key=lambda members: -max(score for _, score in members[1:]))


def small_grey(pixels: np.ndarray) -> np.ndarray:
    """(16, 16) float64 of an (H, W, 3) picture, averaged over its areas whatever its shape.

    Returns:
        (16, 16) float64.
    """
    grey = torch.from_numpy(np.array(pixels)).double().mean(2)
    return torch.nn.functional.adaptive_avg_pool2d(grey[None], EDGE)[0].numpy()


def _standardized(small: np.ndarray) -> np.ndarray:
    flat = small.reshape(len(small), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), TINY))


def _near_pairs(features: Tensor) -> Iterator[tuple[int, int]]:
    unit = torch.nn.functional.normalize(features.float(), dim=1)
    for start in range(0, len(unit), BLOCK):
        near = unit[start : start + BLOCK] @ unit.T >= 1 - NEAR
        for one, other in near.triu(start + 1).nonzero().tolist():
            yield start + one, other


def _root(group: list[int], row: int) -> int:
    while group[row] != row:
        row = group[row]
    return row


def _join(group: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(group, one), _root(group, other)))
    group[second] = first


def _cleanlab() -> tuple[Any, Any]:
    """Its filter and its judge of outliers.

    Raises:
        UserError: If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cleanlab import filter as filters
            from cleanlab import outlier
    except ImportError:
        raise UserError("rekindle data clean needs cleanlab: pip install 'rekindle[clean]'") from None
    return filters, outlier
