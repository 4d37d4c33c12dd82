"""Which layers a method compares, and their activations in one order of dimensions."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from annotated_types import Predicate
from torch import Tensor

from rekindle.errors import number_of
from rekindle.hooks import INPUT
from rekindle.method import Batch, Net, Source, require
from rekindle.methods._math import safe_divide, wide
from rekindle.models.structure import channel_axis
from rekindle.spec import Means, distinct

STAGES, STEM = "stages", "stem"

Name = Annotated[str, Predicate(bool)]
Layers = Annotated[
    Name | Annotated[tuple[Name, ...], Predicate(bool), Predicate(distinct)],
    Means('"stages", the name of a layer, or a tuple of names, each once'),
]
Reduction = Literal["relative", "batchmean", "sum"]


def stage_layers(net: Net) -> tuple[str, ...]:
    """Stages that are modules, input first; not the stem, nor what holds the classifier, whose outputs are logits."""
    modules = dict(net.model.named_modules())
    ends = [name for name in (*net.head, net.classifier) if name]
    whole = [stage for stage in net.stages if stage in modules and stage != STEM]
    return tuple(stage for stage in whole if not any(f"{end}.".startswith(f"{stage}.") for end in ends))


def find_layers(net: Net, source: Source, layers: str | tuple[str, ...], owner: str) -> tuple[str, ...]:
    """Names of the layers to compare.

    Args:
        net: The network.
        source: Its source, which must have layers of these names too.
        layers: "stages" for every stage but the stem that is a module, or one or more names of modules.
        owner: The method's name, for messages.

    Raises:
        ValueError: If a name is unknown, listing candidates, or there is no stage.
    """
    mine, theirs = dict(net.model.named_modules()), dict(source.model.named_modules())
    if layers == STAGES:
        found = tuple(name for name in stage_layers(net) if name in theirs)
        require(bool(found), f"{owner}: the network has no stage that its source has too; name layers, such as layers=('layer4',).")
        return found
    names = (layers,) if isinstance(layers, str) else layers
    for name in names:
        listed = ", ".join(_candidates(name, net))
        require(name in mine, f"{owner}: the network has no layer {name!r}; candidates are {listed}.")
        require(name in theirs, f"{owner}: the source has no layer {name!r}; candidates are {listed}.")
    return names


def _candidates(name: str, net: Net) -> list[str]:
    inside = [other for other, _ in net.model.named_modules() if other]
    return list(dict.fromkeys([*difflib.get_close_matches(name, inside, n=5), *stage_layers(net)])) or inside[:10]


def channels_first(activation: Tensor, net: Net, layer: str) -> Tensor:
    """Bring maps, tokens or vectors to (B, C, positions); see `channel_axis`."""
    return _maps(activation, net, layer).flatten(2)


def _maps(activation: Tensor, net: Net, layer: str) -> Tensor:
    """(B, C, H, W), (B, C, N) or (B, C, 1), in float32 or better."""
    moved = wide(activation).movedim(channel_axis(activation, net, layer), 1)
    return moved.unsqueeze(2) if moved.ndim == 2 else moved


def pooled(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Average the larger of two maps down to the other's size: (B, C, *S), (B, D, *T) to (B, C, P), (B, D, P).

    Maps are pooled over height and width; tokens, and a map beside tokens, along the order of their positions.
    """
    if a.shape[2:] == b.shape[2:]:
        return a.flatten(2), b.flatten(2)
    if a.ndim == b.ndim == 4:
        height, width = (min(one, other) for one, other in zip(a.shape[2:], b.shape[2:], strict=True))
        return F.adaptive_avg_pool2d(a, (height, width)).flatten(2), F.adaptive_avg_pool2d(b, (height, width)).flatten(2)
    flat_a, flat_b = a.flatten(2), b.flatten(2)
    length = min(flat_a.shape[2], flat_b.shape[2])
    return F.adaptive_avg_pool1d(flat_a, length), F.adaptive_avg_pool1d(flat_b, length)


def paired_maps(batch: Batch, layers: Sequence[str], net: Net, owner: str) -> Iterator[tuple[Tensor, Tensor]]:
    """For each layer what the network and its source gave there: maps (B, C, *S) each, in float32 or better.

    Raises:
        ValueError: If a layer gave no tensor, or other channels than in the source.
    """
    for layer in layers:
        mine, theirs = (_maps(_kept(found, layer, owner), net, layer) for found in (batch.activations, batch.source_activations))
        same = mine.shape[:2] == theirs.shape[:2]
        require(
            same,
            f"{owner}: layer {layer} has {number_of(mine.shape[1], 'channel')}, but {theirs.shape[1]} in the source; name other layers.",
        )
        yield mine, theirs


def paired(batch: Batch, layers: Sequence[str], net: Net, owner: str) -> Iterator[tuple[Tensor, Tensor]]:
    """As `paired_maps`, at common positions: (B, C, positions) each."""
    for mine, theirs in paired_maps(batch, layers, net, owner):
        yield pooled(mine, theirs)


def relative(distances: Tensor, theirs: Tensor) -> Tensor:
    """(B,) squared distances as shares of the squared length of what the source gave for the same sample.

    Activations of one network are a hundred times larger than those of another; shares of them can be compared.

    Args:
        distances: (B,).
        theirs: (B, ...), without gradients.
    """
    return safe_divide(distances, theirs.flatten(1).square().sum(1))


def _kept(activations: dict[str, Tensor], layer: str, owner: str) -> Tensor:
    require(layer in activations, f"{owner}: layer {layer.removesuffix(INPUT)} did not run, or gave no single tensor; name other layers.")
    return activations[layer]
