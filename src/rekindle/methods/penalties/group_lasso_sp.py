"""Group-Lasso-SP: alpha * sum_G s_G * ||w_G - w0_G||_2 on shared parameters, beta/2 * ||w||^2 on new ones.

Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018
(arXiv 1802.01483), section 3. A group is the fan-in of one output channel, s_G the square root of its size: whole channels
stay as they were, or move freely. GL-SP-Fisher weighs the squares by the Fisher information of the source.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rekindle.method import DataPasses, Net, Source, require
from rekindle.methods._math import nonzero, safe_divide
from rekindle.methods.penalties._anchored import Shrinking, Solver
from rekindle.methods.penalties._fisher import Information, Normalization
from rekindle.methods.penalties._pull import Measure, Scope
from rekindle.spec import NonNegative

Group = Literal["channel", "layer"]


@dataclass
class GroupLassoSP(Shrinking):
    """Keep as many output channels as possible at their pre-trained weights.

    Args:
        alpha: Strength on shared parameters, at least 0.
        beta: Strength of beta/2 * ||w||^2 on new parameters, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.
        solver: "subgradient" adds alpha * s_G * d/||d|| to the gradient, 0 at d = 0; "proximal" shortens d = w - w0 of each
            group by lr * alpha * s_G after the optimiser's step, at most to 0.
        group: "channel", one group for each position along a tensor's first dimension, so that each element of a bias is one;
            or "layer", each whole tensor.
        fisher: Weigh the squares inside the norm by the Fisher information (GL-SP-Fisher), which is estimated before training.
            With "proximal" it is refused: there is no closed form.
        normalize: "none", or "mean" to divide the Fisher information by its mean over all weights. Only with `fisher`.
        eps: Added to the sum of squares under the root, at least 0; the authors' code has 1e-16. Only with "subgradient".

    Raises:
        ValueError: If an argument is out of range, two do not go together, or the network shares nothing with its source.
    """

    alpha: NonNegative = 1e-4
    beta: NonNegative = 1e-4
    scope: Scope = "all"
    solver: Solver = "subgradient"
    group: Group = "channel"
    fisher: bool = False
    normalize: Normalization = "none"
    eps: NonNegative = 0.0

    paper: ClassVar[str] = "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483 (Group-Lasso-SP)"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "beta": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = self.solver == "subgradient"
        require(plain or not self.fisher, f'{self.name}: fisher=True has no closed proximal operator; take solver="subgradient".')
        require(
            self.fisher or self.normalize == "none",
            f"{self.name}: normalize={self.normalize!r} scales the Fisher information; give it with fisher=True.",
        )
        require(plain or not self.eps, f'{self.name}: eps must be 0 with solver="proximal", which needs no smoothing, found {self.eps!r}.')
        self.uses_source_data = self.fisher

    def prepare(self, data: DataPasses) -> None:
        """Estimate the Fisher information, if it is asked for."""
        if self._information is not None and self.alpha > 0:
            self._information.estimate_(data, normalize=self.normalize)

    def state_dict(self) -> dict[str, Any]:
        """The anchors, and the Fisher information if there is one, by parameter name."""
        found = super().state_dict()
        return found if self._information is None else found | self._information.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put both back, in place."""
        super().load_state_dict(state)
        if self._information is not None:
            self._information.load_state_dict(state)

    def _measure(self, net: Net, source: Source) -> Measure:
        self._information = Information(self.name, net, source, self._names, self._anchors) if self.fisher else None
        return Groups(self.group, self.eps, None if self._information is None else self._information.tensors)


class Groups(Measure):
    """sum_G s_G * sqrt(sum_{j in G} F_j d_j^2 + eps), s_G the square root of the group's size.

    Args:
        group: "channel" or "layer".
        eps: At least 0; at 0 the gradient at d = 0 is the zero subgradient, not the NaN of a root's derivative.
        fisher: F, one tensor a parameter; None is 1.
    """

    def __init__(self, group: Group, eps: float = 0.0, fisher: list[Tensor] | None = None) -> None:
        self._group, self._eps, self._fisher = group, eps, fisher

    def costs(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """The sum of the groups' lengths, each times the root of the group's size.

        Returns:
            One scalar a distance.
        """
        found = []
        for distance, row in zip(distances, rows, strict=True):
            d = self._in_groups(distance)
            found.append(_root_size(d) * self._lengths(d * self._root(row)).sum())
        return found

    def slopes(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """s_G * F * d / length; 0 where the length is 0.

        Returns:
            One tensor a distance, of its shape.
        """
        for distance, row in zip(distances, rows, strict=True):
            d = self._in_groups(distance)
            if self._fisher is None:
                lengths = self._lengths(d)
            else:
                root = self._root(row)
                lengths = self._lengths(d.mul_(root))
                d.mul_(root)
            d.div_(nonzero(lengths / _root_size(d)))
        return distances

    def shrunk(self, distance: Tensor, row: int, amount: float) -> Tensor:
        """max(0, 1 - amount * s_G / ||d_G||) * d_G.

        Returns:
            A tensor of the distance's shape.
        """
        d = self._in_groups(distance)
        lengths = self._lengths(d)
        kept = (lengths - amount * _root_size(d)).clamp_min(0)
        return (safe_divide(d, lengths) * kept).view_as(distance)

    def _in_groups(self, tensor: Tensor) -> Tensor:
        """(groups, ...): one row a group, of at least one dimension; a view, in whatever order the tensor lies in memory."""
        if tensor.ndim == 0 or (tensor.ndim == 1 and self._group == "channel"):
            return tensor.view(-1, 1)
        return tensor if self._group == "channel" else tensor.unsqueeze(0)

    def _root(self, row: int) -> Tensor | float:
        return 1.0 if self._fisher is None else self._in_groups(self._fisher[row]).sqrt()

    def _lengths(self, d: Tensor) -> Tensor:
        inside = tuple(range(1, d.ndim))
        if self._eps:
            return (d.square().sum(inside, keepdim=True) + self._eps).sqrt()
        lengths: Tensor = torch.linalg.vector_norm(d, dim=inside, keepdim=True)
        return lengths


def _root_size(d: Tensor) -> float:
    """s_G: the square root of a group's size."""
    return math.sqrt(math.prod(d.shape[1:]))
