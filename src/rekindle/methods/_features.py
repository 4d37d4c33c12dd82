"""The features that a network's head reads, for methods that look at them before training."""

import torch
from torch import Tensor, nn

from rekindle.hooks import FeatureHooks
from rekindle.method import DataPasses, Net


def net_input(net: Net) -> str:
    """The layer that holds the features the head reads."""
    return f"{net.head[0]}:input"


@torch.no_grad()
def collect_features(model: nn.Module, layer: str, data: DataPasses) -> tuple[Tensor, Tensor]:
    """One pass: (N, D) float64 features at a layer, maps averaged over positions, and (N,) labels, on the CPU."""
    hooks = FeatureHooks(model, [layer])
    features, labels = [], []
    for x, y in data.target():
        model(x)
        found = hooks.take()[layer]
        features.append((found.mean((2, 3)) if found.ndim == 4 else found.flatten(1)).double().cpu())
        labels.append(y.cpu())
    hooks.remove()
    return torch.cat(features), torch.cat(labels)
