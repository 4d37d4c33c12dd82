"""LP-FT: fit the head on frozen features first, then fine-tune everything from there.

Kumar, Raghunathan, Jones, Ma, Liang: Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
ICLR 2022 (arXiv 2202.10054), section 4. Stage 1 is logistic regression on features in evaluation mode, its inverse strength
chosen among 100 values from 1e-7 to 1e2 on held-out data, as in the authors' code; stage 2 is the run itself.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rekindle.errors import number_of
from rekindle.method import DataPasses, Method, Net, Source, require
from rekindle.methods._features import collect_features
from rekindle.rng import keyed_generator
from rekindle.spec import Count

HELD_OUT = 0.2
LOWEST, HIGHEST = -7, 2


@dataclass
class LPFT(Method):
    """Start from the linear classifier that is best on frozen features, instead of a random one.

    Args:
        strengths: How many inverse strengths between 1e-7 and 1e2 are tried on a fifth of the training images, at least 1; one is
            taken as 1.0 without a trial.
        rescale: Bring the fitted weights to the standard deviation of the layer's default initialisation.

    Raises:
        ValueError: For an argument out of range, a head that is not one linear layer, or a class without images.
    """

    strengths: Count = 100
    rescale: bool = False

    name: ClassVar[str] = "lp_ft"
    paper: ClassVar[str] = "Kumar et al., ICLR 2022, arXiv 2202.10054"
    neutral: ClassVar[dict[str, Any] | None] = None

    def incompatible_with(self, other: Method) -> str | None:
        """A draw of the head would discard the fitted one."""
        instead = "take rifle_b, or one of the two" if other.name == "rifle" else "take one of the two"
        return f"{other.name} draws the head anew, which discards what lp_ft has fitted; {instead}." if other.draws_head else None

    def attach(self, net: Net, source: Source) -> None:
        """Check that the head is one linear layer."""
        modules = net.head_modules()
        linear = [module for module in modules if isinstance(module, nn.Linear) and module.bias is not None]
        require(
            len(modules) == len(linear) == 1,
            f"lp_ft: the head {list(net.head)} is not one linear layer with a bias; try --head-type linear, without source_classifier.",
        )
        self._net, self._layer = net, linear[0]

    def prepare(self, data: DataPasses) -> None:
        """Stage 1: nothing but the head changes."""
        features, labels = collect_features(self._net, data)
        classes = self._layer.weight.shape[0]
        missing = sorted(set(range(classes)) - set(labels.tolist()))
        require(not missing, f"lp_ft: class {missing[0] if missing else ''} has no training image, so no classifier can be fitted.")
        weight, bias = fit_head(features, labels, self.strengths, self._net.seed, data)
        if self.rescale:
            wanted = 1 / np.sqrt(3 * weight.shape[1])
            factor = wanted / weight.std()
            weight, bias = weight * factor, bias * factor
        with torch.no_grad():
            self._layer.weight.copy_(torch.from_numpy(weight))
            self._layer.bias.copy_(torch.from_numpy(bias))


def fit_head(features: Tensor, labels: Tensor, strengths: int, seed: int, data: DataPasses) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, D) and bias (C,) of the best logistic regression; two classes get half the logit each, with opposite signs.

    Returns:
        (weight (C, D), bias (C,)).
    """
    x, y = features.numpy(), labels.numpy()
    best = 1.0
    if strengths > 1:
        data.note(
            f"lp_ft: {number_of(strengths, 'logistic regression')} on {number_of(len(x), 'image')} of {number_of(x.shape[1], 'feature')}; then fine-tuning begins."
        )
        train, held = _split(y, seed)
        scores = []
        grid = np.logspace(LOWEST, HIGHEST, strengths)
        model = _regression(1.0, warm=True)
        for number, strength in enumerate(grid, 1):
            model.C = strength
            scores.append(model.fit(x[train], y[train]).score(x[held], y[held]))
            data.progress("lp_ft: fitting the head", number, strengths)
        best = float(grid[int(np.argmax(scores))])  # Of equals the first, which is the strongest regularisation.
    fitted = _regression(best).fit(x, y)
    weight, bias = fitted.coef_, fitted.intercept_
    return (np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2) if len(weight) == 1 else (weight, bias)


def _regression(strength: float, warm: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=1000, warm_start=warm)


def _split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A fifth of each class is held out, at least one; a class of one image stays in the training part alone."""
    shuffled = torch.randperm(len(labels), generator=keyed_generator(seed, "lp_ft")).numpy()
    held = [row for label in np.unique(labels) for rows in [shuffled[labels[shuffled] == label]] for row in rows[: _share(len(rows))]]
    return np.setdiff1d(shuffled, held), np.array(held or shuffled, dtype=int)


def _share(count: int) -> int:
    return min(count - 1, max(1, round(HELD_OUT * count)))
