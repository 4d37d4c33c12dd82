"""The blocks of a network from input to output, by which depth is counted."""

from collections.abc import Sequence

from torch import nn

from rekindle.method import Net
from rekindle.models.structure import STEM


def blocks_of(net: Net) -> list[list[str]]:
    """Parameter names by block, behind the stem and before the head.

    A block is a stage, as `rekindle models NAME` lists them, with what stands between it and the next: where stages are made of
    layers, those that are a single layer (the last convolution and norm of an EfficientNet) count to the block before them; where
    none is, as in VGG, those without a matrix or kernel do.
    """
    stages = {name: members for name, members in net.stages.items() if name != STEM and _exists(net.model, name)}
    opens = [name for name, members in stages.items() if _is_block(net, name, members)]
    opens = opens or [name for name, members in stages.items() if _has_matrix(net, members)]
    blocks: list[list[str]] = []
    for name, members in stages.items():
        if name in opens or not blocks:
            blocks.append([])
        blocks[-1] += members
    return blocks


def flat(blocks: Sequence[Sequence[str]]) -> list[str]:
    """The names in all of them."""
    return [name for block in blocks for name in block]


def _exists(model: nn.Module, name: str) -> bool:
    """Whether a stage is a part of the network; one that a method added may be a list of parameters alone."""
    return any(name == part for part, _ in model.named_modules())


def _is_block(net: Net, stage: str, members: list[str]) -> bool:
    return _has_matrix(net, [name for name in members if "." in name.removeprefix(f"{stage}.")])


def _has_matrix(net: Net, names: list[str]) -> bool:
    parameters = net.parameters()
    return any(parameters[name].ndim > 1 for name in names)
