"""Auto-RGN: layers whose gradients are large beside their weights learn fast, the others slowly.

Lee, Chen, Tajwar, Kumar, Yao, Liang, Finn: Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, ICLR 2023 (arXiv 2210.11466):
the relative gradient norm of a layer is ||g|| / ||w||; each layer's learning rate is multiplied by its own over the largest, once an
epoch. Layers that have little to learn are all but frozen, without a choice of blocks beforehand.

Their code measures five batches before each epoch, takes each tensor for a layer, starts Adam anew each epoch, and leaves BatchNorm
out of the optimiser. Here weight and bias of a module are one layer, since a bias that starts at 0 has an infinite ratio; before the first
epoch the training set is measured in evaluation mode, afterwards the gradients of the epoch before, which cost nothing. The new head, which the
papers' networks have not, keeps its own rate.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.method import Clock, DataPasses, Method, Net, Source
from rekindle.models.structure import logits
from rekindle.spec import Count


@dataclass
class AutoRGN(Method):
    """Multiply the learning rate of each layer of the backbone by its relative gradient norm over the largest, anew in each epoch.

    Args:
        batches: Batches of training pictures that are measured before the first epoch, at least 1; 5 in the authors' code.

    Raises:
        ValueError: For an argument out of range.
    """

    batches: Count = 5

    name: ClassVar[str] = "auto_rgn"
    paper: ClassVar[str] = "Lee, Chen, Tajwar, Kumar, Yao, Liang, Finn, ICLR 2023, arXiv 2210.11466"
    neutral: ClassVar[dict[str, Any] | None] = None
    scales_layers: ClassVar[bool] = True

    def attach(self, net: Net, source: Source) -> None:
        """Sort the parameters of the backbone by layer; all rates are 1 until something is measured."""
        head = net.head_parameters()
        self._net = net
        self._layers: dict[str, list[nn.Parameter]] = {}
        for name, parameter in net.parameters().items():
            if name not in head:
                self._layers.setdefault(name.rpartition(".")[0], []).append(parameter)
        self._factors = dict.fromkeys(self._layers, 1.0)
        self._sums = dict.fromkeys(self._layers, 0.0)

    def prepare(self, data: DataPasses) -> None:
        """Measure some batches of the training set."""
        parameters = [p for members in self._layers.values() for p in members if p.requires_grad]
        for x, y in itertools.islice(data.target(), self.batches):
            with torch.enable_grad():
                loss = F.cross_entropy(logits(self._net.model(x)), y)
                found = torch.autograd.grad(loss, parameters, allow_unused=True)
            self._add({id(p): g for p, g in zip(parameters, found, strict=True) if g is not None})
        self._take()

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Nothing is drawn: a new epoch goes by the gradients of the one before."""
        if clock.step == 0 and clock.epoch > 0:
            self._take()
        return False

    def layer_factor(self, layer: str, clock: Clock) -> float:
        """The relative gradient norm over the largest."""
        return self._factors.get(layer, 1.0)

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        """Measure the gradients that the step took."""
        self._add({id(p): p.grad for members in self._layers.values() for p in members if p.grad is not None})

    def incompatible_with_direction(self) -> str | None:
        """After a step it only looks."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """The factors in force, and what the running epoch has shown."""
        return {"factors": self._factors, "sums": {name: float(value) for name, value in self._sums.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._factors, self._sums = dict(state["factors"]), dict(state["sums"])

    @torch.no_grad()
    def _add(self, gradients: dict[int, Tensor]) -> None:
        """Add each layer's ratio to its sum; a layer without gradients or weights has none."""
        layers = {name: [p for p in members if id(p) in gradients] for name, members in self._layers.items()}
        seen = {name: members for name, members in layers.items() if members}
        tops = [_norm([gradients[id(p)] for p in members]) for members in seen.values()]
        bottoms = [_norm(members) for members in seen.values()]
        if seen:  # Tensors are added, since a GPU is not to be waited for in each step.
            ratios = torch.nan_to_num(torch.stack(tops) / torch.stack(bottoms), nan=0.0, posinf=0.0)
            self._sums |= {name: self._sums[name] + ratio for name, ratio in zip(seen, ratios, strict=True)}

    def _take(self) -> None:
        """Rates by the mean ratios since the last time; where all are 0, or nothing was seen, the old ones stay."""
        sums = {name: float(value) for name, value in self._sums.items()}
        largest = max(sums.values(), default=0.0)
        if largest > 0:
            self._factors = {name: value / largest for name, value in sums.items()}
        self._sums = dict.fromkeys(self._layers, 0.0)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64) for tensor in tensors]
    whole: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return whole
