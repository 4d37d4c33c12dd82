"""Dropout between convolutions.

A comparison method of Li et al., RIFLE, ICML 2020 (arXiv 2007.03349), Table 1, with p in {0.1, 0.2, 0.5}; the paper does not
say where. Our reading is one place in each residual block: after the activation that follows its 3x3 convolution. `kind` is
that of Srivastava et al., JMLR 15 (2014), or of Tompson et al., CVPR 2015 (arXiv 1411.4280), which drops whole channels.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor, nn

from rekindle.method import Method, Net, Source, require
from rekindle.models.structure import residual_blocks

STAGE = re.compile(r"((layer|stage|block|level|s)_?)?\d+")
# The convolution that reads the activation: the last of a bottleneck or an inverted residual, the second 3x3 of a basic block.
READERS = ("conv3", "conv3_1x1", "conv_pwl", "pw_proj", "conv2", "conv2_kxk", "conv2_1x1", "conv_pw")
SEQUENCES = ("conv", "block", "layers", "f")  # torchvision's branches that are one sequence.
Kind = Literal["element", "channel"]


@dataclass
class CNNDropout(Method):
    """Drop activations inside residual blocks, or after stages, in training.

    Args:
        p: Probability of a drop, from 0 (nothing happens) to below 1.
        where: "block" acts inside every residual block, before its last convolution; "stage" on the output of each stage.
        kind: "element" drops single numbers, "channel" whole maps of a channel.

    Raises:
        ValueError: For an argument out of range, or a network without such a place.
    """

    p: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    where: Literal["block", "stage"] = "block"
    kind: Kind = "element"

    paper: ClassVar[str] = "Li, Xiong, An, Xu, Dou, ICML 2020, arXiv 2007.03349, Table 1"
    neutral: ClassVar[dict[str, Any] | None] = {"p": 0.0}

    def surgery(self, net: Net, source: Source) -> None:
        """Watch the places."""
        if not self.p:
            return
        if self.where == "block":
            for part in block_places(net.model):
                part.register_forward_pre_hook(_DropBefore(self.p, self.kind))
        else:
            for part in stage_places(net):
                part.register_forward_hook(_DropAfter(self.p, self.kind))


def block_places(model: nn.Module) -> list[nn.Module]:
    """The convolution, in each residual block, whose input is dropped.

    Returns:
        Modules, from input to output.

    Raises:
        ValueError: If the network has no residual block with such a convolution.
    """
    found = [part for block in residual_blocks(model, "cnn_dropout") for part in [_reader(block.module)] if part is not None]
    require(bool(found), f"cnn_dropout: the residual blocks of {type(model).__name__} have no second convolution; try where='stage'.")
    return found


def stage_places(net: Net) -> list[nn.Module]:
    """The numbered stages, such as `layer1` or `stages.0`.

    Returns:
        Modules, from input to output.

    Raises:
        ValueError: If the network has none.
    """
    names = [name for name in net.stages if STAGE.fullmatch(name.rpartition(".")[2])]
    require(bool(names), f"cnn_dropout: {type(net.model).__name__} has no numbered stages; its stages are {', '.join(net.stages)}.")
    return [net.model.get_submodule(name) for name in names]


def drop(x: Tensor, p: float, kind: Kind) -> Tensor:
    """Dropout with inverted scaling, of single numbers or of channels.

    Args:
        x: (B, C, ...) activations; (B, C, H, W) for channels.
        p: In [0, 1).
        kind: "element" or "channel".

    Returns:
        A tensor of the shape of x.

    Raises:
        ValueError: If channels are asked for and `x` is not a batch of maps.
    """
    if kind == "element":
        return F.dropout(x, p)
    require(x.ndim == 4, f"cnn_dropout: kind='channel' needs maps of shape (B, C, H, W), found {tuple(x.shape)}; take kind='element'.")
    return F.dropout2d(x, p)


def _reader(block: nn.Module) -> nn.Module | None:
    for name in READERS:
        part = getattr(block, name, None)
        if isinstance(part, nn.Module):
            return part
    for name in SEQUENCES:
        part = getattr(block, name, None)
        if isinstance(part, nn.Sequential):
            return _last_reader(part)
    return None


def _last_reader(branch: nn.Sequential) -> nn.Module | None:
    """The last part with a convolution, if another one comes before it."""
    parts = [part for part in branch if any(isinstance(inner, nn.Conv2d) for inner in part.modules())]
    return parts[-1] if len(parts) > 1 else None


class _DropBefore:
    """A forward pre-hook: dropout of a module's first input while it trains."""

    def __init__(self, p: float, kind: Kind) -> None:
        self.p, self.kind = p, kind

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (drop(inputs[0], self.p, self.kind), *inputs[1:]) if module.training else None


class _DropAfter:
    """A forward hook: dropout of a module's output, or of each map where it gives several, while it trains."""

    def __init__(self, p: float, kind: Kind) -> None:
        self.p, self.kind = p, kind

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if not module.training:
            return None
        if isinstance(output, Tensor):
            return drop(output, self.p, self.kind)
        return type(output)(drop(part, self.p, self.kind) for part in output)
