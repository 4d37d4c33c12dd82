"""Co-Tuning: train the source's classifier on the source classes that go with each target class.

You, Kou, Long, Wang: Co-Tuning for Transfer Learning, NeurIPS 2020: CE + lambda * CE(p(y_s | y_t), source classifier), with
lambda 2.3. The relationship p(y_s | y_t) is found once, from what the source says of the training images:

- direct: the mean of the source's probabilities over the images of a class, as tllib does;
- calibrated: logistic regression from the source's probabilities to p(y_t | y_s), turned round by Bayes' rule, as the authors'
  code. Its strength is chosen by the likelihood of held-out images; the authors' constant factor on the source's logits, which
  belongs to their network, is left out.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rekindle.errors import number_of
from rekindle.method import Batch, DataPasses, Method, Net, Source, require
from rekindle.methods._math import wide
from rekindle.methods._source_head import keep_source_head
from rekindle.models.structure import logits
from rekindle.rng import keyed_generator
from rekindle.spec import NonNegative

HELD_OUT = 0.2
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)


@dataclass
class CoTuning(Method):
    """Train the kept source classifier too, on the source classes that each target class resembles (Co-Tuning).

    Args:
        strength: lambda, at least 0.
        relationship: "direct" or "calibrated".

    Raises:
        ValueError: For an argument out of range, a source without a classifier or with two, or a class without images.
    """

    strength: NonNegative = 2.3
    relationship: Literal["direct", "calibrated"] = "direct"

    paper: ClassVar[str] = "You, Kou, Long, Wang, NeurIPS 2020"
    neutral: ClassVar[dict[str, Any]] = {"strength": 0.0}
    needs_hard_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._relationship: Tensor | None = None

    def surgery(self, net: Net, source: Source) -> None:
        """Keep the source's classifier, trainable."""
        if self.strength > 0:
            self.hook_layers = (keep_source_head(net, source, self.name),)

    def attach(self, net: Net, source: Source) -> None:
        """Remember whom to ask."""
        self._net, self._source = net, source.model

    def prepare(self, data: DataPasses) -> None:
        """One pass through the source in evaluation mode."""
        if not self.strength > 0:
            return
        probabilities, labels, classes = source_probabilities(self._net.model, self._source, data)
        absent = sorted(set(range(classes)) - set(labels.tolist()))
        require(
            not absent, f"co_tuning: class {absent[0] if absent else ''} has no training image, so nothing is known of what it resembles."
        )
        if self.relationship == "direct":
            self._relationship = class_means(probabilities, labels, classes)
        else:
            self._relationship = calibrated(probabilities, labels, self._net.seed, data)

    def penalty(self, batch: Batch) -> Tensor | None:
        """lambda * the cross entropy of the kept classifier with the label's row of the relationship."""
        if not self.strength > 0:
            return None
        require(self._relationship is not None, "co_tuning: the relationship is not known yet; call tuner.prepare(pass_over_data) first.")
        assert self._relationship is not None
        kept = wide(batch.activations[self.hook_layers[0]]).flatten(1)
        self._relationship = self._relationship.to(kept)
        return self.strength * relationship_loss(kept, batch.labels, self._relationship)

    def state_dict(self) -> dict[str, Any]:
        """The relationship, (C, C_s)."""
        return {} if self._relationship is None else {"relationship": self._relationship}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put it back; it moves to where the logits are when it is first used."""
        self._relationship = state["relationship"].clone() if "relationship" in state else None


def relationship_loss(kept: Tensor, labels: Tensor, relationship: Tensor) -> Tensor:
    """Mean over the batch of -sum_s p(s | label) * log softmax(kept)_s.

    Args:
        kept: (B, C_s) logits of the source's classifier.
        labels: (B,) target classes.
        relationship: (C, C_s), rows of sum 1.

    Returns:
        A scalar with its graph, in nats.
    """
    return -(relationship[labels] * F.log_softmax(kept, 1)).sum(1).mean()


@torch.no_grad()
def source_probabilities(model: nn.Module, source: nn.Module, data: DataPasses) -> tuple[Tensor, Tensor, int]:
    """(N, C_s) float64 probabilities of the source and (N,) labels, on the CPU; and the classes that the network tells apart.

    Returns:
        (probabilities, labels, number of classes).
    """
    probabilities, labels = [], []
    classes = 0
    for x, y in data.target():
        classes = classes or logits(model(x)).flatten(1).shape[1]
        probabilities.append(logits(source(x)).flatten(1).double().softmax(1).cpu())
        labels.append(y.cpu())
    require(bool(labels), "co_tuning: there is no training data to look at.")
    return torch.cat(probabilities), torch.cat(labels), classes


def class_means(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(C, C_s) mean of (N, C_s) probabilities over the samples of each class.

    Returns:
        (C, C_s) float64, rows of sum 1.
    """
    return torch.stack([probabilities[labels == label].mean(0) for label in range(classes)])


def calibrated(probabilities: Tensor, labels: Tensor, seed: int, data: DataPasses) -> Tensor:
    """(C, C_s): p(s | t) in proportion to p(t | s) * p(s), p(t | s) by logistic regression and p(s) the mean probability.

    p(t | s) is what the regression says of an image of which the source is certain that it is s.

    Returns:
        (C, C_s) float64, rows of sum 1.
    """
    x, y = probabilities.numpy(), labels.numpy()
    model = _regression(_best_strength(x, y, seed, data)).fit(x, y)
    given_source = torch.from_numpy(model.predict_proba(np.eye(x.shape[1])))  # (C_s, C)
    joint = given_source.T * probabilities.mean(0)
    return joint / joint.sum(1, keepdim=True)


def _best_strength(x: np.ndarray, y: np.ndarray, seed: int, data: DataPasses) -> float:
    """The inverse strength under which held-out labels are likeliest; 1 if no class has a sample to spare."""
    held = _held_out(y, seed)
    if not held.any():
        return 1.0
    data.note(
        f"co_tuning: {len(STRENGTHS)} logistic regressions on {number_of(int((~held).sum()), 'image')} and {number_of(x.shape[1], 'source class')}."
    )
    likelihoods = []
    for number, strength in enumerate(STRENGTHS, 1):
        model = _regression(strength).fit(x[~held], y[~held])
        likelihoods.append(model.predict_log_proba(x[held])[np.arange(int(held.sum())), y[held]].mean())
        data.progress("co_tuning: relationship of classes", number, len(STRENGTHS))
    return STRENGTHS[int(np.argmax(likelihoods))]


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """(N,) mask: a fifth of each class, at least one sample, but none of a class that has one alone."""
    shuffled = torch.randperm(len(labels), generator=keyed_generator(seed, "co_tuning")).numpy()
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = shuffled[labels[shuffled] == label]
        mask[rows[: min(len(rows) - 1, max(1, round(HELD_OUT * len(rows))))]] = True
    return mask


def _regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1000)
