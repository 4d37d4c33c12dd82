"""DropConnect: drop weights of the classifier instead of its inputs.

Wan, Zeiler, Zhang, LeCun, Fergus: Regularization of Neural Networks using DropConnect, ICML 2013; a comparison method of
Li et al., RIFLE, ICML 2020 (arXiv 2007.03349), Table 1, with p in {0.1, 0.2, 0.5}.

The paper draws a mask for each sample and, at test time, matches moments with a Gaussian; here evaluation uses the mean
weights. The class called DropConnect in the RIFLE authors' script masks whole samples, which is another method.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from rekindle.method import Method, Net, Source, require

CONVOLUTIONS = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


@dataclass
class DropConnect(Method):
    """Drop single weights of the classifier in training, and scale up what is left; biases stay.

    Args:
        p: Probability that a weight is dropped, from 0 (nothing happens) to below 1.
        per: "batch" draws one mask a micro-batch; "sample" one an image, as the paper, at the cost of a weight matrix an image.

    Raises:
        ValueError: For an argument out of range, or a head that is neither linear nor a plain convolution.
    """

    p: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    per: Literal["batch", "sample"] = "batch"

    name: ClassVar[str] = "dropconnect"
    paper: ClassVar[str] = "Wan, Zeiler, Zhang, LeCun, Fergus, ICML 2013"
    neutral: ClassVar[dict[str, Any] | None] = {"p": 0.0}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._hooks: list[Any] = []

    def attach(self, net: Net, source: Source) -> None:
        """Watch the layers of the head, after all surgery on it; once, also where the network moves to another device."""
        for hook in self._hooks:
            hook.remove()
        if not self.p:
            return
        layers = net.head_modules()
        require(bool(layers), "dropconnect: the network has no head to act on; name its classifier with head=...")
        connecting = [(name, layer) for name, layer in zip(net.head, layers, strict=True) if _connects(layer)]
        require(bool(connecting), f"dropconnect: the head ({', '.join(net.head)}) has no weights between units to drop.")
        for name, layer in connecting:
            require(
                _is_plain(layer),
                f"dropconnect: the head's {name} is a {type(layer).__name__}; wanted is a linear layer, "
                "or a convolution without groups whose padding is zeros.",
            )
        self._hooks = [layer.register_forward_hook(_DropWeights(self.p, self.per)) for _, layer in connecting]


class _DropWeights:
    """A forward hook that computes the layer's output again, with masked weights, while it trains."""

    def __init__(self, p: float, per: str) -> None:
        self.p, self.per = p, per

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not module.training:
            return None
        x, weight = inputs[0], module.weight
        assert isinstance(weight, Tensor)
        copies = (len(x), *weight.shape) if self.per == "sample" else weight.shape
        return apply_weights(module, x, F.dropout(weight.expand(copies), self.p))


def apply_weights(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer's output with other weights: of the layer's own shape, or with a first dimension of length B, one set a sample.

    Args:
        layer: Linear (x (B, ..., D)) or a convolution without groups (x (B, D, ...)).
        x: Inputs.
        weight: (C, D, ...) or (B, C, D, ...).

    Returns:
        (B, C) or the layer's own output shape, with its graph.
    """
    bias = layer.bias
    assert bias is None or isinstance(bias, Tensor)
    if isinstance(layer, nn.Linear):
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        found = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight.transpose(1, 2)).reshape(*x.shape[:-1], -1)
        return found if bias is None else found + bias.to(found.dtype)
    convolve = next(function for kind, function in CONVOLUTIONS.items() if isinstance(layer, kind))
    shape: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    if weight.ndim == len(layer.kernel_size) + 2:  # type: ignore[arg-type]
        return convolve(x, weight, bias, **shape)
    # A convolution whose groups are the samples applies each sample's weights to it alone.
    count, outputs = weight.shape[:2]
    many = None if bias is None else bias.repeat(count)
    found = convolve(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), many, groups=count, **shape)
    return found.reshape(count, outputs, *found.shape[2:])


def _connects(layer: nn.Module) -> bool:
    """Whether a layer has weights between units; scales and normalisations have one a unit, which are no connections."""
    return any(p.ndim > 1 for p in layer.parameters())


def _is_plain(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return type(layer).forward is nn.Linear.forward
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.groups == 1 and layer.padding_mode == "zeros"
