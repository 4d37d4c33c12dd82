"""How much the loss grows when a channel of a layer is set to zero, under a head that fits the target classes.

Li et al.: DELTA, ICLR 2019 (arXiv 1901.09229), section 3.3: first a new head is fitted on the frozen network, then each channel's
importance is the mean over some batches of the loss without it less the loss with it.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rekindle.errors import number_of
from rekindle.hooks import INPUT, FeatureHooks
from rekindle.method import DataPasses, Net, require
from rekindle.methods._math import wide
from rekindle.methods.distillation._rerun import Rerun
from rekindle.models.structure import channel_axis, logits
from rekindle.rng import keyed_generator

Batches = list[tuple[Tensor, Tensor]]
HEAD_EPOCHS, HEAD_RATE, HEAD_MOMENTUM, HEAD_DECAY, HEAD_BATCH = 10, 0.01, 0.9, 1e-4, 64
TENTH_AT = 6


def head_parts(net: Net) -> tuple[str, ...]:
    """Names of the modules that make logits of features: the classifier that holds the whole head, or else each of its layers."""
    whole = bool(net.classifier) and all(f"{name}.".startswith(f"{net.classifier}.") for name in net.head)
    return (net.classifier,) if whole else net.head


def fit_heads(net: Net, data: DataPasses) -> tuple[dict[str, nn.Module], int]:
    """Copies of the head's parts, trained on frozen features in evaluation mode, and the number of samples.

    Ten epochs of SGD with momentum 0.9 and weight decay 1e-4 in batches of 64 drawn by the run's seed; the rate falls
    exponentially from 0.01, a tenth of it at epoch 6: the authors' settings, but for their training mode and augmentation. Two
    classifiers side by side are fitted one by one.
    """
    names = head_parts(net)
    features, labels = _features(net.model, names, data)
    fitted = {name: _fit(net, name, features[name], labels, data) for name in names}
    return fitted, len(labels)


@torch.no_grad()
def _features(model: nn.Module, parts: Sequence[str], data: DataPasses) -> tuple[dict[str, Tensor], Tensor]:
    """One pass: what comes into each part of the head, and the labels, on the CPU."""
    names = [f"{part}{INPUT}" for part in parts]
    hooks = FeatureHooks(model, names)
    found: dict[str, list[Tensor]] = {part: [] for part in parts}
    labels = []
    try:
        for x, y in data.target():
            model(x)
            kept = hooks.take()
            for part, name in zip(parts, names, strict=True):
                found[part].append(wide(kept[name]).cpu())
            labels.append(y.cpu())
    finally:
        hooks.remove()
    require(bool(labels), "delta: there is no training data to look at.")
    return {part: torch.cat(rows) for part, rows in found.items()}, torch.cat(labels)


@torch.enable_grad()
def _fit(net: Net, name: str, features: Tensor, labels: Tensor, data: DataPasses) -> nn.Module:
    head = net.head_parameters()
    part = copy.deepcopy(net.model.get_submodule(name)).eval().requires_grad_(False)
    new = [p.requires_grad_(True) for leaf, p in part.named_parameters() if f"{name}.{leaf}" in head]
    require(bool(new), f'delta: the head {name} has no parameters to fit, so channels cannot be weighed; take weights="uniform".')
    device, dtype = new[0].device, new[0].dtype
    optimizer = torch.optim.SGD(new, lr=HEAD_RATE, momentum=HEAD_MOMENTUM, weight_decay=HEAD_DECAY)
    for epoch in range(HEAD_EPOCHS):
        optimizer.param_groups[0]["lr"] = HEAD_RATE * 0.1 ** (epoch / TENTH_AT)
        for rows in torch.randperm(len(labels), generator=keyed_generator(net.seed, "delta", "head", epoch)).split(HEAD_BATCH):
            loss = F.cross_entropy(part(features[rows].to(device, dtype)).flatten(1), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        data.progress("delta: fitting a head", epoch + 1, HEAD_EPOCHS)
    return part


@contextmanager
def swapped_weights(model: nn.Module, parts: dict[str, nn.Module]) -> Iterator[None]:
    """Give modules the weights of copies of them for a while; afterwards the old ones are back, to the bit."""
    pairs = [pair for name, part in parts.items() for pair in zip(model.get_submodule(name).parameters(), part.parameters(), strict=True)]
    before = [own.data for own, _ in pairs]
    try:
        for own, other in pairs:
            own.data = other.data
        yield
    finally:
        for (own, _), data in zip(pairs, before, strict=True):
            own.data = data


def draw_batches(net: Net, data: DataPasses, count: int, samples: int) -> Batches:
    """`count` batches of the size that the data comes in, of samples drawn by the run's seed: one more pass."""
    chosen: set[int] = set()
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    size = seen = 0
    for x, y in data.target():
        if not size:
            size = len(y)
            chosen = set(torch.randperm(samples, generator=keyed_generator(net.seed, "delta", "batches"))[: count * size].tolist())
        rows = torch.tensor([row for row in range(len(y)) if seen + row in chosen], dtype=torch.long, device=x.device)
        inputs.append(x[rows])
        labels.append(y[rows.to(y.device)])
        seen += len(y)
    order = torch.randperm(len(chosen), generator=keyed_generator(net.seed, "delta", "order")).to(inputs[0].device)
    x, y = torch.cat(inputs)[order], torch.cat(labels)[order.to(labels[0].device)]
    return list(zip(x.split(size), y.split(size), strict=True))


def channel_importance(net: Net, layers: Sequence[str], batches: Batches, data: DataPasses) -> dict[str, Tensor]:
    """(C,) importance of the channels of each layer: the mean over batches of how much the loss grows without one.

    Only what lies behind the layer is computed for each channel. What that costs is said before it starts.
    """
    sizes = _announce(net, layers, batches, data)
    total, done = len(batches) * sum(sizes.values()), 0
    found = {layer: torch.zeros(size, dtype=torch.float64) for layer, size in sizes.items()}
    for x, y in batches:
        for layer in layers:
            growth = []
            for grown in loss_growth(net, layer, x, y):
                growth.append(grown)
                done += 1
                data.progress("delta: importance of channels", done, total)
            found[layer] += torch.stack(growth).double().cpu() / len(batches)
    return found


@torch.no_grad()
def loss_growth(net: Net, layer: str, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """For each channel of a layer, the loss with the channel set to zero less the loss as it is."""
    rerun = Rerun(net.model, layer, x)
    axis = channel_axis(rerun.recorded, net, layer)
    before = _loss(rerun.outputs, y)
    for channel in range(rerun.recorded.shape[axis]):
        yield _loss(rerun(partial(_silence, axis, channel)), y) - before


def _silence(axis: int, channel: int, activation: Tensor) -> Tensor:
    activation.select(axis, channel).zero_()
    return activation


def _same(activation: Tensor) -> Tensor:
    return activation


def _loss(outputs: Any, labels: Tensor) -> Tensor:
    return F.cross_entropy(wide(logits(outputs)), labels)


def _announce(net: Net, layers: Sequence[str], batches: Batches, data: DataPasses) -> dict[str, int]:
    """Channels of each layer; measures one rerun of each and notes what all of them will take."""
    sizes: dict[str, int] = {}
    seconds = 0.0
    x, y = batches[0]
    for layer in layers:
        rerun = Rerun(net.model, layer, x)
        sizes[layer] = rerun.recorded.shape[channel_axis(rerun.recorded, net, layer)]
        as_it_is = float(_loss(rerun.outputs, y))
        again = float(_loss(rerun(_same), y))
        ok = abs(again - as_it_is) <= 1e-3 * max(1.0, abs(as_it_is))
        require(ok, f'delta: running the network again behind {layer} gives another loss; name other layers, or take weights="uniform".')
        began = time.perf_counter()
        float(_loss(rerun(_same), y))  # Waits for the device.
        seconds += sizes[layer] * (time.perf_counter() - began)
    runs = sum(sizes.values()) * len(batches)
    data.note(
        f"delta: the importance of {number_of(sum(sizes.values()), 'channel')} in {number_of(len(layers), 'layer')}, {number_of(len(batches), 'batch')} each, takes {number_of(runs, 'run')} "
        f"of what lies behind them, about {timedelta(seconds=round(seconds * len(batches)))} (h:mm:ss); it is done once."
    )
    return sizes
