"""The features that a network's head reads, for methods that look at them before training."""

import torch
from torch import Tensor

from rekindle.hooks import FeatureHooks
from rekindle.method import DataPasses, Net


def net_input(net: Net) -> str:
    """The layer that holds the features the head reads."""
    return f"{net.head[0]}:input"


@torch.no_grad()
def collect_features(net: Net, data: DataPasses) -> tuple[Tensor, Tensor]:
    """(N, D) float64 features that the head reads, maps averaged over positions, and (N,) labels, on the CPU: by one pass, or as they are known."""
    if data.features is not None:
        return data.features[0].double(), data.features[1]
    model, layer = net.model, net_input(net)
    hooks = FeatureHooks(model, [layer])
    features, labels = [], []
    for x, y in data.target():
        model(x)
        found = hooks.take()[layer]
        features.append((found.mean((2, 3)) if found.ndim == 4 else found.flatten(1)).double().cpu())
        labels.append(y.cpu())
    hooks.remove()
    return torch.cat(features), torch.cat(labels)
