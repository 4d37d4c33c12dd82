"""BSS: batch spectral shrinkage, eta * sum_{i=1..k} sigma_{-i}^2 of the smallest singular values of a batch's features.

Chen, Wang, Fu, Long, Wang: Catastrophic Forgetting Meets Negative Transfer: Batch Spectral Shrinkage for Safe Transfer
Learning, NeurIPS 2019, section 4. Directions in which pre-trained features hardly vary on the target's images are taken to
be those that do not transfer, and are shrunk. Defaults are the paper's: eta 1e-3, k 1.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rekindle.errors import number_of
from rekindle.method import Batch, Method, Net, Source, require
from rekindle.methods._math import wide
from rekindle.spec import Count, NonNegative


@dataclass
class BSS(Method):
    """Shrink the smallest singular values of each batch's features.

    Args:
        eta: Strength, at least 0.
        k: How many of the smallest singular values, from 1 to the smaller of batch size and width of the features.

    Raises:
        ValueError: If an argument is out of range, or the network has no single classifier whose input are the features.
    """

    eta: NonNegative = 1e-3
    k: Count = 1

    paper: ClassVar[str] = "Chen, Wang, Fu, Long, Wang, NeurIPS 2019"
    neutral: ClassVar[dict[str, Any]] = {"eta": 0.0}
    splits_batches: ClassVar[bool] = False  # The spectrum of a batch is not the sum of its parts' spectra.

    def attach(self, net: Net, source: Source) -> None:
        """Watch what the classifier is given."""
        require(
            bool(net.classifier), "bss: the network has no single classifier, so it is not known which of its activations are the features."
        )
        self._layer = f"{net.classifier}:input"
        self.hook_layers = (self._layer,) if self.eta > 0 else ()

    def penalty(self, batch: Batch) -> Tensor | None:
        """Eta times the sum of squares of the k smallest singular values.

        Raises:
            ValueError: If the batch has fewer than k singular values.
        """
        return self.eta * smallest_squares(batch.activations[self._layer], self.k) if self.eta > 0 else None


def smallest_squares(features: Tensor, k: int) -> Tensor:
    """Sum of the squares of the k smallest singular values of a batch's features, in float32 or better.

    Args:
        features: (B, D); maps (B, D, H, W) are averaged over their positions, all else is flattened.
        k: From 1 to min(B, D).

    Returns:
        A scalar with its graph.

    Examples:
        >>> import torch
        >>> round(float(smallest_squares(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2)), 4)
        5.0
    """
    with torch.autocast(features.device.type, enabled=False):
        matrix = wide(features.mean((2, 3)) if features.ndim == 4 else features.flatten(1))
        samples, width = matrix.shape
        most = f"at most {min(samples, width)}, the smaller of the batch's {number_of(samples, 'sample')} and {number_of(width, 'feature')}"
        require(k <= min(samples, width), f"bss: k must be {most}, found {k}; take a smaller k, or a larger batch.")
        values: Tensor = torch.linalg.svdvals(matrix)  # Sorted from largest to smallest.
        return values[-k:].square().sum()
