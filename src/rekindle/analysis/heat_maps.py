"""Where a network looks: gradient times activation at its last feature map.

The gradient of a class's logit is multiplied by the activation, summed over channels, and what speaks against the class is dropped
(Draelos and Carin, Use HiResCAM instead of Grad-CAM, arXiv 2011.08891). Where a global average pool and a linear layer follow, as in
residual networks, it is Grad-CAM (Selvaraju et al., ICCV 2017). In a transformer it is taken from the tokens that enter the last block,
since behind it a class token alone is read; class and register tokens are left out. captum does the differentiation.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rekindle.errors import UserError
from rekindle.models.structure import transformer_blocks

BATCH = 8


def heat_maps(module: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """(N, S, S) from 0 to 1, the greatest of each map 1; 0 all over where nothing speaks for the class.

    Args:
        module: A network in evaluation mode, which returns logits.
        x: (N, 3, S, S), normalised.
        targets: (N,) classes.

    Raises:
        UserError: Without captum, or for a network without a feature map.
    """
    try:
        from captum.attr import LayerGradientXActivation
    except ImportError:
        raise UserError("heat maps need captum: pip install 'rekindle[explain]'") from None
    layer, enters = _feature_layer(module, x[:1])
    method = LayerGradientXActivation(module, layer)
    maps = []
    for start in range(0, len(x), BATCH):
        rows = slice(start, start + BATCH)
        found = method.attribute(x[rows], target=targets[rows], attribute_to_layer_input=enters)
        maps.append(_on_grid(found[0] if isinstance(found, tuple) else found).detach().clamp_min(0))
    heat = interpolate(torch.cat(maps)[:, None].float(), x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    most = heat.amax((1, 2), keepdim=True)
    return heat / torch.where(most > 0, most, 1)


def _feature_layer(module: nn.Module, x: Tensor) -> tuple[nn.Module, bool]:
    """The layer that the maps are read at, and whether at its input."""
    blocks = transformer_blocks(module)
    kept: list[tuple[nn.Module, Tensor]] = []
    tokens: list[Tensor] = []
    handles = [part.register_forward_hook(lambda part, _, output: kept.append((part, output))) for part in module.modules()]
    if blocks:
        handles.append(module.get_submodule(blocks[-1]).register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0])))
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    if tokens and tokens[0].ndim == 3:
        return module.get_submodule(blocks[-1]), True
    for layer, output in reversed(kept):
        if isinstance(output, Tensor) and output.ndim == 4 and _channel_axis(output.shape) is not None:
            return layer, False
    raise UserError(f"{type(module).__name__} has no feature map, so there is nothing to draw a heat map from.")


def _channel_axis(shape: Any) -> int | None:
    """Where the channels of a square map stand, 1 or 3; None where it is no map, or of one cell."""
    if shape[2] == shape[3] > 1:
        return 1
    return 3 if shape[1] == shape[2] > 1 else None


def _on_grid(found: Tensor) -> Tensor:
    """(N, H, W) from attributions of a map, or of tokens, of which those beyond the greatest square come first and are no place."""
    if found.ndim == 4:
        return found.sum(_channel_axis(found.shape) or 1)
    edge = math.isqrt(found.shape[1])
    grid: Tensor = found.sum(2)[:, found.shape[1] - edge * edge :].unflatten(1, (edge, edge))
    return grid
