"""What methods share that bring weights back towards the pre-trained ones after the optimiser's step. Not a method itself."""

from typing import Any

import torch
from torch import Tensor, nn

from rekindle.method import Method, Net, Source, require
from rekindle.methods._math import wide
from rekindle.methods.penalties._pull import Scope, in_scope


class HeldWeights(Method):
    """Shared parameters with their anchors w0, by name; new parameters have none and are left alone.

    Attributes:
        scope: A field of the method: "all", or "weights" for tensors with two or more dimensions.
    """

    scope: Scope

    def attach(self, net: Net, source: Source) -> None:
        """Take the source's weights as anchors: float32 or better, detached, and on the parameters' device."""
        self._parameters = in_scope(net.shared(), self.scope)
        require(bool(self._parameters), f"{self.name}: the network shares no parameter with its source, so there is nothing to hold it to.")
        self._anchors = {name: source.tensors[net.source_names[name]].to(p.device) for name, p in self._parameters.items()}

    def state_dict(self) -> dict[str, Any]:
        """The anchors by parameter name."""
        return {"anchors": dict(self._anchors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the stored anchors in the place of the source's, which others share."""
        self._anchors = {name: state["anchors"][name].to(anchor.device) for name, anchor in self._anchors.items()}

    def _moving(self) -> dict[str, nn.Parameter]:
        """Those that the next step moves: trainable, with a gradient."""
        return {name: p for name, p in self._parameters.items() if p.requires_grad and p.grad is not None}

    def _distances(self, names: list[str]) -> list[Tensor]:
        """w - w0 of each, in float32 or better."""
        if not names:
            return []
        values = [wide(self._parameters[name].detach()) for name in names]
        return list(torch._foreach_sub(values, [self._anchors[name] for name in names]))
