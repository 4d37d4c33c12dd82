"""How good a classifier is: accuracy, what it costs per class, and whether its confidence can be believed."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, bucketize, linspace
from torch.nn.functional import nll_loss

from rekindle.errors import UserError

BINS = 15
SMALLEST = 1e-12


def mean_nll(probabilities: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood in nats, of (N, C) probabilities and (N,) labels; a probability of 0 counts as 1e-12.

    Returns:
        Nats, 0 or more.

    Examples:
        >>> import torch
        >>> round(mean_nll(torch.tensor([[0.5, 0.5]]), torch.tensor([0])), 4)
        0.6931
    """
    return float(nll_loss(probabilities.clamp_min(SMALLEST).log(), labels))


def reliability(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """How far confidences can be believed, of (N, C) probabilities and (N,) labels: loss and calibration_error, as `summarize` has them.

    Returns:
        {"loss": nats, "calibration_error": from 0 to 1}.
    """
    return {"loss": mean_nll(probabilities, labels), "calibration_error": calibration_error(probabilities, labels)}


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error over `BINS` bins of equal width: the mean distance of confidence and accuracy, weighted by pictures.

    torchmetrics has it too, but takes seconds to import.

    Args:
        probabilities: (N, C) float, N at least 1.
        labels: (N,) true classes.

    Returns:
        From 0 to 1.

    Examples:
        >>> import torch
        >>> round(calibration_error(torch.tensor([[0.9, 0.1], [0.9, 0.1]]), torch.tensor([0, 1])), 4)
        0.4
    """
    confidences, predicted = probabilities.double().max(1)
    bins = bucketize(confidences.float(), linspace(0, 1, BINS + 1, device=probabilities.device), right=True)
    gaps = confidences.new_zeros(BINS + 2).index_add_(0, bins, (predicted == labels).double() - confidences)
    return float(gaps.abs().sum()) / len(labels)


def beyond_luck(ours: Sequence[bool], theirs: Sequence[bool]) -> bool:
    """Whether one classifier is right on more of the same pictures than another, by more than a standard error of the difference.

    Of the pictures on which just one of the two is right, n in all, either has n / 2 by luck, and their difference a standard
    deviation of sqrt(n) (McNemar 1947).

    Returns:
        True where the first classifier is better beyond luck.

    Examples:
        >>> beyond_luck([True] * 9, [True] * 5 + [False] * 4), beyond_luck([True, False], [False, True])
        (True, False)
    """
    gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    return gained - lost > math.sqrt(gained + lost)


def summarize(probabilities: Tensor, labels: Tensor, classes: list[str]) -> dict[str, Any]:
    """Figures of one split, as result.json holds them; all but loss and counts are fractions from 0 to 1.

    Args:
        probabilities: (N, C) float, rows summing to 1.
        labels: (N,) true classes.
        classes: C names.

    Returns:
        Loss (mean negative log-likelihood, nats), accuracy, macro_f1, calibration_error (expected calibration error over 15
        bins; Guo et al., ICML 2017), count, per_class (precision of a class never predicted and recall of one without pictures
        are 0), and the confusion matrix (rows true, columns predicted).

    Raises:
        UserError: If there are no pictures.

    Examples:
        >>> import torch
        >>> found = summarize(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]), ["dress", "hat"])
        >>> found["accuracy"], found["confusion"]
        (0.5, [[1, 1], [0, 0]])
    """
    if not len(labels):
        raise UserError("there are no pictures to measure; name a folder that holds at least one.")
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    width = range(len(classes))
    predicted = probabilities.argmax(1).numpy()
    true = labels.numpy()
    table = precision_recall_fscore_support(true, predicted, labels=width, zero_division=0.0)
    per_class = [
        {"name": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(classes, *table, strict=True)
    ]
    return {
        **reliability(probabilities, labels),
        "accuracy": float((predicted == true).mean()),
        "macro_f1": float(table[2].mean()),
        "count": len(labels),
        "per_class": per_class,
        "confusion": confusion_matrix(true, predicted, labels=width).tolist(),
    }
