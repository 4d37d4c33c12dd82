"""The loss of the task."""

import torch
import torch.nn.functional as F
from torch import Tensor


class CrossEntropy:
    """Cross-entropy with label smoothing and class weights, averaged over the batch.

    Labels are (B,) classes or (B, C) shares of classes. Class weights multiply each sample's loss (they are not divided by their
    sum in the batch), so that the mean over ranks is the mean over the global batch; of a mixed picture each share counts with
    its own class's weight.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.class_weights = weights = self.class_weights.to(logits.device)  # Kept there: a GPU would wait for the copy in each step.
        if labels.is_floating_point():
            weighted = labels * weights
            smooth = weighted.sum(1, keepdim=True) / labels.shape[1]
            return F.cross_entropy(logits, weighted.lerp(smooth.expand_as(weighted), self.label_smoothing))
        each = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        return (each * weights[labels]).mean()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Inverse class frequencies, so that the mean weight over the training set is 1.

    Returns:
        (C,) float32, above 0.

    Examples:
        >>> import torch
        >>> [round(w, 3) for w in balanced_weights(torch.tensor([0, 0, 0, 1]), 2).tolist()]
        [0.667, 2.0]
    """
    counts = torch.bincount(labels, minlength=classes).clamp(min=1)
    return len(labels) / (classes * counts.float())
