"""L2-SP-Fisher: alpha/2 * sum_j F_j * (w_j - w0_j)^2 on shared parameters, beta/2 * ||w||^2 on new ones.

Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer Learning with Convolutional Networks, ICML 2018
(arXiv 1802.01483), section 3. F is the diagonal Fisher information of the source at w0; as in elastic weight
consolidation (Kirkpatrick et al., PNAS 2017), weights that the source's predictions depend on are held more firmly.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rekindle.method import DataPasses, Net, Source, require
from rekindle.methods.penalties._anchored import TowardsStart
from rekindle.methods.penalties._fisher import Estimate, Information, Normalization, Stabilizer
from rekindle.methods.penalties._pull import Measure, Scope
from rekindle.spec import NonNegative


@dataclass
class L2SPFisher(TowardsStart):
    """Pull each shared weight towards its pre-trained value in proportion to what it meant for the source.

    Args:
        alpha: Strength on shared parameters, at least 0. The scale of F is the network's own, so it must be tuned anew for each;
            or take `normalize` "mean".
        beta: Strength on new parameters, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.
        estimate: Which classes the log-likelihood is differentiated for: "expected", all, by their probability; "sampled", one
            draw a sample; "empirical", the true one, which needs data of the source; "auto", expected up to 100 source classes.
        normalize: "none", or "mean" to divide F by its mean over all weights.
        stabilizer: "add" takes F + eps, "clip" min(F, eps); after `normalize`.
        eps: At least 0, and above 0 for "clip".

    Raises:
        ValueError: If an argument is out of range, the network shares nothing with its source, or that has no single classifier.
    """

    alpha: NonNegative = 0.01
    beta: NonNegative = 1e-4
    scope: Scope = "all"
    estimate: Estimate = "auto"
    normalize: Normalization = "none"
    stabilizer: Stabilizer = "add"
    eps: NonNegative = 0.0

    uses_source_data = True
    paper: ClassVar[str] = "Li, Grandvalet, Davoine, ICML 2018, arXiv 1802.01483 (L2-SP-Fisher)"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "beta": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = self.stabilizer == "add" or self.eps > 0
        require(ok, f'{self.name}: eps must be above 0 with stabilizer="clip", which lets F be no larger than that.')

    def prepare(self, data: DataPasses) -> None:
        """Estimate F, unless nothing asks for it."""
        if self.alpha > 0:
            self._information.estimate_(data, self.estimate, self.normalize, self.stabilizer, self.eps)

    def state_dict(self) -> dict[str, Any]:
        """The anchors and F by parameter name."""
        return super().state_dict() | self._information.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put both back, in place."""
        super().load_state_dict(state)
        self._information.load_state_dict(state)

    def _measure(self, net: Net, source: Source) -> Measure:
        self._information = Information(self.name, net, source, self._names, self._anchors)
        return Weighted(self._information.tensors)


class Weighted(Measure):
    """1/2 * sum_j F_j * d_j^2.

    Args:
        fisher: F, one tensor a parameter; read at each call.
    """

    def __init__(self, fisher: list[Tensor]) -> None:
        self._fisher = fisher

    def costs(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """Half the weighted sum of squares.

        Returns:
            One scalar a distance.
        """
        return [0.5 * (self._fisher[row] * d.square()).sum() for d, row in zip(distances, rows, strict=True)]

    def slopes(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """F * d.

        Returns:
            One tensor a distance, of its shape.
        """
        torch._foreach_mul_(distances, [self._fisher[row] for row in rows])
        return distances
