"""DisturbLabel: train on wrong labels now and then.

Xie, Wang, Wei, Wang, Tian: DisturbLabel: Regularizing CNN on the Loss Layer, CVPR 2016 (arXiv 1605.00055); a comparison
method of Li et al., RIFLE, ICML 2020 (arXiv 2007.03349), Table 1, with gamma in {0.05, 0.1, 0.2}.

With probability gamma a label becomes a uniform draw over all C classes, its own among them, so that
P(true) = 1 - gamma (C - 1) / C and P(other) = gamma / C. The expected loss is that of label smoothing with epsilon = gamma.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rekindle.method import Clock, Method, Net, Source, require
from rekindle.rng import uniform
from rekindle.spec import Share


@dataclass
class DisturbLabel(Method):
    """Replace labels by uniform draws over all classes, in training alone.

    Args:
        gamma: Probability that a label is drawn anew, from 0 (nothing happens) to 1.

    Raises:
        ValueError: For an argument out of range, or a head whose number of classes cannot be read.
    """

    gamma: Share = 0.1

    paper: ClassVar[str] = "Xie, Wang, Wei, Wang, Tian, CVPR 2016, arXiv 1605.00055"
    neutral: ClassVar[dict[str, Any] | None] = {"gamma": 0.0}
    needs_hard_labels: ClassVar[bool] = True

    def attach(self, net: Net, source: Source) -> None:
        """Count the classes."""
        if self.gamma:
            self._classes = count_classes(net)

    def labels(self, labels: Tensor, indices: Tensor | None, clock: Clock) -> Tensor:
        """Disturbed labels: the same for an image on every rank and after resume; others in each epoch.

        Where the loop does not know the images' indices, draws depend on the place in the run instead.
        """
        if not self.gamma:
            return labels
        key: tuple[int | str, ...] = (clock.seed, "disturb_label", clock.epoch)
        if indices is None:
            key += ("step", clock.step, clock.micro, clock.rank)
        samples = np.arange(len(labels)) if indices is None else indices.cpu().numpy()
        return disturb(labels, samples, self.gamma, self._classes, *key)


def disturb(labels: Tensor, samples: np.ndarray, gamma: float, classes: int, *key: int | str) -> Tensor:
    """(B,) labels, each with probability `gamma` replaced by a uniform draw over all classes.

    Args:
        labels: (B,) class indices.
        samples: (B,) what the draws depend on besides the key, such as indices of images, at least 0.
        gamma: In [0, 1].
        classes: C, at least 1.
        key: As in `rekindle.rng.uniform`.

    Returns:
        (B,) int64.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> disturb(torch.tensor([2, 1]), np.array([0, 1]), gamma=0.0, classes=3).tolist()
        [2, 1]
    """
    draws = uniform(samples, 2, *key)
    disturbed = torch.from_numpy(draws[:, 0] < gamma).to(labels.device, non_blocking=True)
    drawn = torch.from_numpy(np.floor(draws[:, 1] * classes).astype(np.int64)).to(labels.device, labels.dtype, non_blocking=True)
    return torch.where(disturbed, drawn, labels)


def count_classes(net: Net) -> int:
    """Width of the last layer of the head.

    Returns:
        A count of at least 1.

    Raises:
        ValueError: If the head has no layer that tells.
    """
    layers = [part for module in net.head_modules() for part in module.modules() if _width(part)]
    require(
        bool(layers),
        f"disturb_label: the head {list(net.head)} does not tell the number of classes; end it in a linear or convolutional layer.",
    )
    return _width(layers[-1])


def _width(part: nn.Module) -> int:
    """Outputs of a layer; 0 if it is none."""
    for name in ("out_features", "out_channels"):
        if isinstance(getattr(part, name, None), int):
            return int(getattr(part, name))
    bias = getattr(part, "bias", None)
    return len(bias) if isinstance(bias, Tensor) and bias.ndim == 1 else 0
