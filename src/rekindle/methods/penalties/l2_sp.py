"""L2-SP: alpha/2 * ||w - w0||^2 on shared parameters, beta/2 * ||w||^2 on new ones.

Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018
(arXiv 1802.01483), section 3. w0 is the pre-trained start. Defaults are those of the RIFLE authors' code (alpha 0.01,
beta 1e-4, all parameters); the L2-SP paper itself takes weights only and beta 0.01.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rekindle.method import Net, Source
from rekindle.methods._math import safe_divide
from rekindle.methods.penalties._anchored import TowardsStart
from rekindle.methods.penalties._pull import Measure, Scope
from rekindle.spec import NonNegative


@dataclass
class L2SP(TowardsStart):
    """Pull shared parameters towards their pre-trained values, new ones towards zero.

    Args:
        alpha: Strength on shared parameters, at least 0.
        beta: Strength on new parameters, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.
        orthogonal: Leave the length of each output channel free: only what is orthogonal to its pre-trained weights is
            penalised, in tensors with two or more dimensions. For layers before a normalisation, which undoes their scale.

    Raises:
        ValueError: If an argument is out of range, or the network shares nothing with its source.
    """

    alpha: NonNegative = 0.01
    beta: NonNegative = 1e-4
    scope: Scope = "all"
    orthogonal: bool = False

    paper: ClassVar[str] = "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "beta": 0.0}

    def _measure(self, net: Net, source: Source) -> Measure:
        return Orthogonal(self._anchors) if self.orthogonal else Measure()


class Orthogonal(Measure):
    """1/2 * ||d - <d,u> u||^2 for each output channel, u its pre-trained weights at length 1.

    It is the authors' 1/2 * ||w - (<w,w0>/||w0||^2) w0||^2, since the part of w0 orthogonal to itself is 0. A channel of
    zeros has no direction and keeps its whole distance.

    Args:
        anchors: w0, one tensor a parameter; read at each call, so that a resumed run sees those it has loaded.
    """

    def __init__(self, anchors: list[Tensor]) -> None:
        self._anchors = anchors

    def costs(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """Half the square of the orthogonal part.

        Returns:
            One scalar a distance.
        """
        return super().costs(self.slopes(distances, rows), rows)

    def slopes(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """The orthogonal part itself: a projection is its own square.

        Returns:
            One tensor a distance, of its shape.
        """
        return [orthogonal_part(d, self._anchors[row]) if d.ndim >= 2 else d for d, row in zip(distances, rows, strict=True)]


def orthogonal_part(distance: Tensor, anchor: Tensor) -> Tensor:
    """(O, ...) the part of each output channel's distance that is orthogonal to the anchor's channel.

    Returns:
        A tensor of the distance's shape.
    """
    d, a = distance.flatten(1), anchor.flatten(1)
    unit = safe_divide(a, torch.linalg.vector_norm(a, dim=1, keepdim=True))
    return (d - (d * unit).sum(1, keepdim=True) * unit).view_as(distance)
