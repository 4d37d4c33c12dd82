"""L2 mixture: alpha/2 * ||w - w0||^2 + decay/2 * ||w||^2 on shared parameters, with strengths of their own for each stage.

Plested, Shen, Gedeon: Non-binary deep transfer learning for image classification, 2021 (arXiv 2107.08585): how much is
transferred is a matter of degree, layer by layer. The sum is one pull, of strength alpha + decay, to the shrunk anchor
alpha/(alpha + decay) * w0, and a constant.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from rekindle.method import Net, Source, require
from rekindle.methods.penalties._anchored import TowardsStart
from rekindle.methods.penalties._pull import Measure, Scope
from rekindle.spec import Means, NonNegative


@dataclass
class L2Mixture(TowardsStart):
    """Pull shared parameters towards their pre-trained values and towards zero at once, stage by stage.

    Args:
        alpha: Strength of the pull to the pre-trained values, at least 0.
        decay: Strength of the pull to zero, at least 0.
        beta: Strength on new parameters, to zero, at least 0.
        scope: "all", or "weights" for tensors with two or more dimensions.
        stages: (stage, alpha, decay) triples for stages that are to have their own; `rekindle models NAME` lists the stages.

    Raises:
        ValueError: If an argument is out of range, the network shares nothing with its source, or has no stage of a name.
    """

    alpha: NonNegative = 0.01
    decay: NonNegative = 1e-4
    beta: NonNegative = 1e-4
    scope: Scope = "all"
    stages: Annotated[
        tuple[tuple[str, NonNegative, NonNegative], ...], Means("a tuple of (stage, alpha, decay) triples, with numbers of at least 0")
    ] = ()

    paper: ClassVar[str] = "Plested, Shen, Gedeon, 2021, arXiv 2107.08585"
    neutral: ClassVar[dict[str, Any]] = {"alpha": 0.0, "decay": 0.0, "beta": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [stage for stage, _, _ in self.stages]
        require(len(set(names)) == len(names), f"{self.name}: stages must name each stage once, found {names}.")

    def attach(self, net: Net, source: Source) -> None:
        """Copy the anchors, and give each parameter its strengths."""
        super().attach(net, source)
        self._shared.strength = float(self.alpha + self.decay + sum(alpha + decay for _, alpha, decay in self.stages) > 0)

    def _measure(self, net: Net, source: Source) -> Measure:
        for stage, _, _ in self.stages:
            require(stage in net.stages, f"{self.name}: there is no stage {stage!r}; the stages are {', '.join(net.stages)}.")
        own = {name: (alpha, decay) for stage, alpha, decay in self.stages for name in net.stages[stage]}
        return Mixture(self._anchors, [own.get(name, (self.alpha, self.decay)) for name in self._names])


class Mixture(Measure):
    """alpha/2 * ||d||^2 + decay/2 * ||d + w0||^2: the strengths differ between parameters, so that of the pull is 1.

    Args:
        anchors: w0, one tensor a parameter; read at each call.
        strengths: (alpha, decay), one pair a parameter.
    """

    def __init__(self, anchors: list[Tensor], strengths: list[tuple[float, float]]) -> None:
        self._anchors, self._strengths = anchors, strengths

    def costs(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """Both halves.

        Returns:
            One scalar a distance.
        """
        found = []
        for d, row in zip(distances, rows, strict=True):
            alpha, decay = self._strengths[row]
            found.append(0.5 * alpha * d.square().sum() + 0.5 * decay * (d + self._anchors[row]).square().sum())
        return found

    def slopes(self, distances: list[Tensor], rows: list[int]) -> list[Tensor]:
        """(alpha + decay) * d + decay * w0, which is alpha * (w - w0) + decay * w.

        Returns:
            One tensor a distance, of its shape.
        """
        for alpha, decay in {self._strengths[row] for row in rows}:
            alike = [place for place, row in enumerate(rows) if self._strengths[row] == (alpha, decay)]
            torch._foreach_mul_([distances[place] for place in alike], alpha + decay)
            torch._foreach_add_([distances[place] for place in alike], [self._anchors[rows[place]] for place in alike], alpha=decay)
        return distances
