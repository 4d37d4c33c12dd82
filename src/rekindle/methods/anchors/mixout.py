"""Mixout: in each forward pass a part of the weights is swapped for the pre-trained ones.

Lee, Cho, Kang: Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models, ICLR 2020 (arXiv 1909.11299),
section 3; with a mask M that is 0 with probability p, the network computes with

    ((1 - M) * w0 + M * w - p * w0) / (1 - p) = w0 + M * (w - w0) / (1 - p),

whose mean is w. Dropout is the case w0 = 0. The mask is drawn for input neurons: with one of them all weights that go out from it are
swapped (Figure 1). p is 0.7 in section 5, 0.8 and 0.9 as well in section 6.3. The new output layer, which has no pre-trained weights, gets
dropout and a decay to zero in section 5; section 6.2 takes mixout with the start of the layer for it.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.optim import Optimizer

from rekindle.method import Clock, Method, Net, Source, as_anchor, require
from rekindle.methods.penalties._pull import Scope, in_scope


@dataclass
class Mixout(Method):
    """Swap weights for their pre-trained values at random in training, and stretch the rest so that the mean stays.

    Args:
        p: Probability that a weight is swapped, from 0 (nothing happens) to below 1; published are 0.7, 0.8 and 0.9.
        per: "neuron" draws for input neurons and swaps all that goes out from them, as published; "weight" draws for each weight.
        scope: "weights" for tensors with two or more dimensions, as the authors' code, or "all".
        head: "none" leaves new parameters alone; "start" swaps them for the values that training began with. For the paper's
            usual form, dropout, add the method dropout.

    Raises:
        ValueError: For an argument out of range, or a network that shares no such parameter with its source.
    """

    p: Annotated[float, Interval(ge=0, lt=1)] = 0.7
    per: Literal["neuron", "weight"] = "neuron"
    scope: Scope = "weights"
    head: Literal["none", "start"] = "none"

    paper: ClassVar[str] = "Lee, Cho, Kang, ICLR 2020, arXiv 1909.11299"
    neutral: ClassVar[dict[str, Any] | None] = {"p": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hooks: list[Any] = []
        self._anchors: dict[str, Tensor] = {}

    def incompatible_with(self, other: Method) -> str | None:
        """A head that is drawn anew has left the start that it would be mixed with."""
        if self.head == "none" or not other.draws_head:
            return None
        return f"{other.name} draws the head anew, and mixout would mix it with the one before; give mixout(head='none')."

    def attach(self, net: Net, source: Source) -> None:
        """Watch the network's forward passes, after all surgery; once, also where it moves to another device."""
        for hook in self._hooks:
            hook.remove()
        shared = in_scope(net.shared(), self.scope)
        require(bool(shared), "mixout: the network shares no weights with its source, so there is nothing to mix them with.")
        self._new = in_scope(net.new(), self.scope) if self.head == "start" else {}
        self._anchors.clear()
        self._anchors.update({name: source.tensors[net.source_names[name]].to(p.device) for name, p in shared.items()})
        if self.p:
            mixing = _Mixing(self._anchors, self.p, self.per)
            self._hooks = [
                net.model.register_forward_pre_hook(mixing.enter),
                net.model.register_forward_hook(mixing.leave, always_call=True),
            ]

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """At the first step, note where new parameters begin; nothing is re-initialised."""
        if clock.global_step == 0:
            self._anchors.update({name: as_anchor(p).clone() for name, p in self._new.items()})
        return False

    def state_dict(self) -> dict[str, Any]:
        """The anchors by parameter name."""
        return {"anchors": dict(self._anchors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the stored anchors in the place of the source's, which others share."""
        device = next(iter(self._anchors.values())).device
        self._anchors.update({name: tensor.to(device) for name, tensor in state["anchors"].items()})


class _Mixing:
    """Both hooks of a network: put mixed weights in the places of its parameters, and afterwards the parameters back.

    The network's forward pass reads the mixed tensors, whichever module or function uses them; gradients reach the parameters through
    them. A deep copy of the network, as short trials make, mixes weights of its own.

    Args:
        anchors: w0 by parameter name; read at each call.
        p: Probability of a swap.
        per: "neuron" or "weight".
    """

    def __init__(self, anchors: dict[str, Tensor], p: float, per: str) -> None:
        self._anchors, self._p, self._per = anchors, p, per
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Mixing":
        found = memo[id(self)] = _Mixing(self._anchors, self._p, self._per)
        return found

    def enter(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Mix, while the network trains. A parameter that is used in several places is mixed once."""
        if not model.training or self._places:
            return
        names = {id(p): name for name, p in model.named_parameters() if name in self._anchors and p.requires_grad}
        self._places = [
            (module, leaf, parameter)
            for module in model.modules()
            for leaf, parameter in module._parameters.items()
            if parameter is not None and id(parameter) in names
        ]
        mixed: dict[int, Tensor] = {}
        for module, leaf, parameter in self._places:
            if id(parameter) not in mixed:
                mask = draw_mask(module, parameter, self._p, self._per)
                mixed[id(parameter)] = mix(parameter, self._anchors[names[id(parameter)]], mask, self._p)
            module._parameters[leaf] = mixed[id(parameter)]  # type: ignore[assignment]

    def leave(self, model: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Put the parameters back, also after an error."""
        for module, leaf, parameter in self._places:
            module._parameters[leaf] = parameter
        self._places = []


def mix(weight: Tensor, anchor: Tensor, mask: Tensor, p: float) -> Tensor:
    """w0 + M * (w - w0) / (1 - p), of the weight's type; its gradient is M / (1 - p).

    Args:
        weight: w.
        anchor: w0, of the same shape.
        mask: M, of a shape that broadcasts; true where w is kept.
        p: Probability of false, below 1.

    Returns:
        A tensor of the weight's shape.
    """
    start = anchor.to(weight.dtype)
    return start + (weight - start) * mask / (1 - p)


def draw_mask(module: nn.Module, weight: Tensor, p: float, per: str) -> Tensor:
    """Where weights are kept: bool of a shape that broadcasts with theirs, drawn from their device's default generator, as for dropout.

    With "neuron" there is one draw an input neuron, for all weights that go out from it. A convolution's groups have inputs of their own.
    Tensors with one dimension have a draw an entry.

    Returns:
        Booleans, true where a weight is kept.
    """
    shape = tuple(weight.shape)
    ones = (1,) * (weight.ndim - 2)
    if per == "weight" or weight.ndim < 2:
        drawn = torch.rand(shape, device=weight.device)
    elif isinstance(module, _ConvTransposeNd):
        drawn = torch.rand(shape[0], 1, *ones, device=weight.device)
    elif isinstance(module, _ConvNd):
        drawn = torch.rand(module.groups, 1, shape[1], *ones, device=weight.device)
        drawn = drawn.expand(-1, shape[0] // module.groups, *(-1 for _ in shape[1:])).reshape(shape[0], shape[1], *ones)
    else:
        drawn = torch.rand(1, *shape[1:], device=weight.device)
    return drawn >= p
