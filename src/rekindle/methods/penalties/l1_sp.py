"""L1-SP: alpha * ||w - w0||_1 on shared parameters, beta/2 * ||w||^2 on new ones.

Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018
(arXiv 1802.01483), section 3. Most weights should not change at all, but plain gradients, as in the authors' code, only
hover around w0; the proximal operator sets them to it.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from rekindle.method import Net, Source
from rekindle.methods.penalties._anchored import Shrinking, Solver
from rekindle.methods.penalties._pull import Measure, Scope
from rekindle.spec import NonNegative


@dataclass
class L1SP(Shrinking):
    """Keep as many shared weights as possible at their pre-trained values.

    Args:
        alpha: Strength on shared parameters, at least 0.
        beta: Strength of beta/2 * ||w||^2 on new parameters, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.
        solver: "subgradient" adds alpha * sign(w - w0) to the gradient; "proximal" moves each weight by lr * alpha towards w0
            after the optimiser's step, and not beyond it.

    Raises:
        ValueError: If an argument is out of range, or the network shares nothing with its source.
    """

    alpha: NonNegative = 1e-4
    beta: NonNegative = 1e-4
    scope: Scope = "all"
    solver: Solver = "subgradient"

    paper: ClassVar[str] = "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483 (L1-SP)"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "beta": 0.0}

    def _measure(self, net: Net, source: Source) -> Measure:
        return Absolute()


class Absolute(Measure):
    """The sum of absolute distances."""

    def costs(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """||d||_1.

        Returns:
            One scalar a distance.
        """
        return [d.abs().sum() for d in distances]

    def slopes(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """sign(d), 0 at 0.

        Returns:
            One tensor a distance, of its shape.
        """
        torch._foreach_sign_(distances)
        return distances

    def shrunk(self, distance: Tensor, row: int, amount: float) -> Tensor:
        """sign(d) * max(|d| - amount, 0).

        Returns:
            A tensor of the distance's shape.
        """
        return softshrink(distance, amount)
