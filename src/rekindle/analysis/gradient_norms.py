"""Gradient norms in depth: Figure 2 of the RIFLE paper (Li et al., ICML 2020, section 4.6.1).

The paper plots the Frobenius norm of the gradient of the last 3x3 convolution of each stage at the beginning of each epoch, and does
not say on which pictures. Here it is the epoch's first batch, in training mode, before the step; beside it stands the mean of the
norms over all batches of the epoch, which wavers less.
"""

from typing import Any

from torch import Tensor

from rekindle.analysis.recorders import Recorder
from rekindle.method import Net, Source, require
from rekindle.models.structure import watched_layers


class GradientNorms(Recorder):
    """Per watched layer the norm on the epoch's first batch ("first"), and its mean over the epoch's batches ("mean").

    Penalties on activations (distillation) are part of the loss and so of the gradient; penalties on weights are not.
    """

    _first: dict[str, float | Tensor]  # Tensors, since a GPU is not to be waited for in each step.
    _sums: dict[str, float | Tensor]
    _steps: int

    def __init__(self, net: Net, source: Source) -> None:
        self._layers = watched_layers(net)
        require(bool(self._layers), "--record gradient_norms: the network has no layer behind its stem that trains.")
        self.load_state_dict({"first": {}, "sums": dict.fromkeys(self._layers, 0.0), "steps": 0})

    def gradients(self) -> None:
        """Measure one step."""
        norms = {layer: 0.0 if weight.grad is None else weight.grad.float().norm().double() for layer, weight in self._layers.items()}
        self._first = self._first or norms
        self._sums = {layer: self._sums[layer] + norm for layer, norm in norms.items()}
        self._steps += 1

    def epoch(self) -> dict[str, Any]:
        """{layer: {"first", "mean"}}."""
        found = {layer: {"first": float(self._first[layer]), "mean": float(self._sums[layer]) / self._steps} for layer in self._layers}
        self.load_state_dict({"first": {}, "sums": dict.fromkeys(self._layers, 0.0), "steps": 0})
        return found

    def state_dict(self) -> dict[str, Any]:
        """Norms of the first batch, sums, and how many steps they are of."""
        first, sums = ({layer: float(norm) for layer, norm in norms.items()} for norms in (self._first, self._sums))
        return {"first": first, "sums": sums, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._first, self._sums, self._steps = dict(state["first"]), dict(state["sums"]), int(state["steps"])
