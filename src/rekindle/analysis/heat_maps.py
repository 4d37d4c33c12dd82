"""Where a network looks, as a map over the picture of what speaks for a class. captum does the differentiation.

In a convolutional network it is the gradient of the class's logit times the activation, summed over channels, at the last feature map
(Draelos and Carin, Use HiResCAM instead of Grad-CAM, arXiv 2011.08891). Where a global average pool and a linear layer follow, as in
residual networks, it is Grad-CAM (Selvaraju et al., ICCV 2017).

In a vision transformer the tokens of the last block are no places any more: what a patch holds may have gone to the class token in any
block before, or to other patches. So it is integrated gradients (Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML
2017) at the grid of patches that enters the first block, from a picture of one colour, the mean of this one; there are no class and
register tokens yet.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rekindle.errors import UserError
from rekindle.models.structure import logits, transformer_blocks

BATCH = 8
STEPS = 8  # Of the integral.


def heat_maps(module: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    """(N, S, S) from 0 to 1, the greatest of each map 1; 0 all over where nothing speaks for the class.

    Args:
        module: A network in evaluation mode, which returns logits.
        x: (N, 3, S, S), normalised.
        targets: (N,) classes.

    Returns:
        (N, S, S) float32 on the device of x, from 0 to 1.

    Raises:
        UserError: Without captum, or for a network without a feature map.
    """
    try:
        from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
    except ImportError:
        raise UserError("heat maps need captum: pip install 'rekindle[explain]'") from None
    layer, is_input = _feature_map(module, x[:1])

    def outputs(rows: Tensor) -> Tensor:
        return _centered(module(rows))

    def attributed(rows: Tensor, classes: Tensor) -> Tensor:
        if not is_input:
            return _tensor(LayerGradientXActivation(outputs, layer).attribute(rows, target=classes))
        plain = rows.mean((2, 3), keepdim=True).expand_as(rows)
        method = LayerIntegratedGradients(outputs, layer)
        return _tensor(method.attribute(rows, plain, target=classes, n_steps=STEPS, internal_batch_size=BATCH))

    found = torch.cat([attributed(*part).detach() for part in zip(x.split(BATCH), targets.split(BATCH), strict=True)])
    maps = found.sum(_channel_axis(found.shape)).clamp_min(0).float()
    heat = interpolate(maps[:, None], x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    most = heat.amax((1, 2), keepdim=True)
    return heat / torch.where(most > 0, most, 1)


def _centered(outputs: Any) -> Tensor:
    """Logits less their mean, which changes no probability: what raises all classes alike speaks for none."""
    found = logits(outputs)
    return found - found.mean(1, keepdim=True)


def _tensor(found: Any) -> Tensor:
    """What captum gives for a layer of one output, be it in a tuple or not."""
    tensor: Tensor = found[0] if isinstance(found, tuple) else found
    return tensor


def _feature_map(module: nn.Module, x: Tensor) -> tuple[nn.Module, bool]:
    """The layer that gives the last map of the network, and whether that is the input of transformer blocks."""
    kept = _outputs(module, x)
    blocks = [module.get_submodule(name) for name in transformer_blocks(module)]
    inside = set(blocks[0].modules()) if blocks else set()
    first = next((place for place, (part, _) in enumerate(kept) if part in inside), len(kept))
    of_tokens = first < len(kept) and isinstance(kept[first][1], Tensor) and kept[first][1].ndim == 3
    for part, output in reversed(kept[:first] if of_tokens else kept):
        if isinstance(output, Tensor) and output.ndim == 4 and _channel_axis(output.shape):
            return part, of_tokens
    raise UserError(f"{type(module).__name__} has no feature map, so there is nothing to draw a heat map from.")


def _outputs(module: nn.Module, x: Tensor) -> list[tuple[nn.Module, Any]]:
    """Every part with its output, in the order in which they end."""
    kept: list[tuple[nn.Module, Any]] = []
    handles = [part.register_forward_hook(lambda part, _, output: kept.append((part, output))) for part in module.modules()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return kept


def _channel_axis(shape: Any) -> int:
    """Where the channels of a square map stand, 1 or 3; 0 where it is no map, or one of a single cell."""
    if shape[2] == shape[3] > 1:
        return 1
    return 3 if shape[1] == shape[2] > 1 else 0
