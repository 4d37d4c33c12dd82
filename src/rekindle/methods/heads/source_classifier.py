"""Keep the source classification layer and grow depth on it, with normalisation and scaling (PCL fine-tuning).

Shermin et al.: Enhanced Transfer Learning with ImageNet Trained Classification Layer, PSIVT 2019 (arXiv 1903.10150).
Normalisation and scale are those of Wang, Ramanan, Hebert: Growing a Brain, CVPR 2017 (arXiv 1907.07844), section 3.2:
y = gamma * h / ||h||_2, gamma one number a unit, learnt.

Neither states widths, the start of gamma, or whether logits or probabilities feed what is new: logits and no hidden layer are
our choice. Gamma starts at the square root of the width, so that what the new layer reads has mean square 1 a unit, for which
its initialisation is made. To start from the mean length of the source logits ("mean") keeps their scale, which can be far
too large: the norm of SqueezeNet's 1000 logits is about 300, and at the papers' learning rates training then diverges. Weight penalties
leave gamma alone: to shrink it would weaken every unit behind it without making anything simpler.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from rekindle.method import DataPasses, Method, Net, Source, require
from rekindle.methods._math import safe_divide, wide
from rekindle.methods._source_head import source_part
from rekindle.rng import keyed_generator, use_generator
from rekindle.spec import Count, Means, Positive


@dataclass
class SourceClassifier(Method):
    """Put the new classifier on top of the source's logits instead of in its place.

    Args:
        hidden: Width of a hidden layer between the two, or a tuple of widths, each at least 1; 0 or () is none.
        activation: "none" or "relu", on the source's logits.
        gamma: Start of the scale: "unit" is the square root of the width, "mean" the mean length of what is normalised over one
            pass of training data, or a number above 0.

    Raises:
        ValueError: For an argument out of range, or a source without a classifier, or with two.
    """

    hidden: Annotated[Annotated[int, Ge(0)] | tuple[Count, ...], Means("a width of at least 1, a tuple of them, or 0 for none")] = 0
    activation: Literal["none", "relu"] = "none"
    gamma: Literal["unit", "mean"] | Positive = "unit"

    paper: ClassVar[str] = "Shermin et al., PSIVT 2019, arXiv 1903.10150; Wang, Ramanan, Hebert, CVPR 2017, arXiv 1907.07844"
    neutral: ClassVar[dict[str, Any] | None] = None

    @property
    def needs_data(self) -> bool:
        """Only the mean length does."""
        return self.gamma == "mean"

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,) if self.hidden else ()

    def surgery(self, net: Net, source: Source) -> None:
        """Replace the new classifier by source classifier, scale, hidden layers and a new classifier."""
        kept = source_part(net, source, "source_classifier")
        old = net.model.get_submodule(net.classifier)
        like = next(old.parameters())
        with use_generator(keyed_generator(net.seed, "source_classifier")):
            new = self._new_layers(output_width(kept, "source_classifier"), output_width(old, "source_classifier"))
        parts = OrderedDict(source=kept, flatten=nn.Flatten(1), **new)
        _put(net.model, net.classifier, nn.Sequential(parts).to(like.device, like.dtype).train(old.training))
        self._rename(net, kept, new)

    def prepare(self, data: DataPasses) -> None:
        """Set each scale to the mean length of what comes into it, the first one first."""
        if not self.needs_data:
            return
        for number, scale in enumerate(self._scales, 1):
            data.progress("source_classifier: scale", number, len(self._scales))
            scale.restart(_mean_length(self._model, scale, data))

    def attach(self, net: Net, source: Source) -> None:
        """Remember the scales."""
        self._model = net.model
        part = net.model.get_submodule(net.classifier)
        self._scales = [module for module in part.children() if isinstance(module, NormScale)]

    def state_dict(self) -> dict[str, Any]:
        """What each scale starts from, and starts from again when it is drawn anew."""
        return {"starts": [scale.start for scale in self._scales]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the starts back; the scales themselves are weights of the network."""
        for scale, start in zip(self._scales, state["starts"], strict=True):
            scale.start = start

    def _new_layers(self, width: int, classes: int) -> "OrderedDict[str, nn.Module]":
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if self.activation == "relu":
            layers["activation"] = nn.ReLU()
        layers["scale"] = NormScale(width, self._start(width))
        for number, hidden in enumerate(self.widths):
            layers[f"hidden{number}"] = nn.Linear(width, hidden)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"scale{number}"] = NormScale(hidden, self._start(hidden))
            width = hidden
        layers["linear"] = nn.Linear(width, classes)
        return layers

    def _start(self, width: int) -> float:
        return math.sqrt(width) if isinstance(self.gamma, str) else float(self.gamma)

    def _rename(self, net: Net, kept: nn.Module, new: "OrderedDict[str, nn.Module]") -> None:
        """The kept layer is shared under its new name and a stage of its own; the head is what is new."""
        part = net.classifier
        net.source_names = {name: source_names for name, source_names in net.source_names.items() if not name.startswith(f"{part}.")}
        net.source_names |= {f"{part}.source.{leaf}": f"{part}.{leaf}" for leaf, _ in kept.named_parameters()}
        net.head = tuple(f"{part}.{name}" for name, module in new.items() if any(True for _ in module.parameters()))
        net.no_weight_decay += tuple(f"{part}.{name}.gamma" for name, module in new.items() if isinstance(module, NormScale))
        net.stages = {**net.stages, "source_classifier": [f"{part}.source.{leaf}" for leaf, _ in kept.named_parameters()]}


class NormScale(nn.Module):
    """y = gamma * h / ||h||_2 a sample, gamma one learnt number a unit; y = 0 where h = 0.

    Args:
        width: Units.
        start: What gamma starts from.
    """

    def __init__(self, width: int, start: float = 1.0) -> None:
        super().__init__()
        self.start = start
        self.gamma = nn.Parameter(torch.full((width,), float(start)))

    def reset_parameters(self) -> None:
        """Start gamma again."""
        nn.init.constant_(self.gamma, self.start)

    @torch.no_grad()
    def restart(self, start: float) -> None:
        """Start gamma from another value."""
        self.start = start
        self.gamma.fill_(start)

    def forward(self, h: Tensor) -> Tensor:
        """(B, D) to (B, D), in float32 or better."""
        h = wide(h)
        return self.gamma * safe_divide(h, torch.linalg.vector_norm(h, dim=1, keepdim=True))


def output_width(part: nn.Module, owner: str) -> int:
    """Units that a classifier gives: the width of its last linear or convolutional layer.

    Returns:
        A count of at least 1.
    """
    widths = [
        width
        for module in part.modules()
        for width in [getattr(module, "out_features", getattr(module, "out_channels", None))]
        if isinstance(width, int)
    ]
    require(bool(widths), f"{owner}: the classifier, a {type(part).__name__}, has no linear or convolutional layer to read its width from.")
    return widths[-1]


@torch.no_grad()
def _mean_length(model: nn.Module, scale: NormScale, data: DataPasses) -> float:
    lengths: list[Tensor] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        lengths.append(torch.linalg.vector_norm(inputs[0].double(), dim=1).cpu())

    handle = scale.register_forward_pre_hook(watch)
    try:
        for x, _ in data.target():
            model(x)
    finally:
        handle.remove()
    mean = float(torch.cat(lengths).mean()) if lengths else 0.0
    require(
        0 < mean < float("inf"),
        f"source_classifier: the mean length of the source logits is {mean:g}, so it cannot be a scale; give gamma.",
    )
    return mean


def _put(model: nn.Module, name: str, part: nn.Module) -> None:
    """Replace a module; what watched the features that came into the old one watches those of the new one."""
    for hook in model.get_submodule(name)._forward_pre_hooks.values():
        part.register_forward_pre_hook(hook)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, part)
