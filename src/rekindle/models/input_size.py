"""Pictures of another size than a vision transformer was trained on: its position embeddings are interpolated.

Dosovitskiy and others: An Image is Worth 16x16 Words, ICLR 2021 (arXiv 2010.11929), section 3.2: "2D interpolation of the pre-trained
position embeddings, according to their location in the original image". Embeddings of class tokens and registers stay as they are.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

import torch
from torch import nn

from rekindle.errors import UserError

if TYPE_CHECKING:
    from torchvision.models.vision_transformer import VisionTransformer


def set_input_size_(module: nn.Module, name: str, size: int) -> bool:
    """Let a network take pictures of another size, in place; one that takes any, such as a convolutional network, is left as it is.

    timm's networks do it themselves (absolute and relative position embeddings, windows), torchvision's ViT by torchvision's function.

    Args:
        module: The network, with its weights.
        name: For messages.
        size: Edge of the pictures in pixels, a multiple of the network's patches.

    Returns:
        Whether it is a network that takes pictures of one size alone.

    Raises:
        UserError: If the network has patches or windows that this size does not fit.
    """
    from torchvision.models.vision_transformer import VisionTransformer

    try:
        if isinstance(module, VisionTransformer):
            _set_torchvision_(module, size)
        elif callable(change := getattr(module, "set_input_size", None)):
            change(img_size=(size, size))
        else:
            return False
        if size % _patch(module) and not getattr(getattr(module, "patch_embed", None), "dynamic_img_pad", False):
            raise ValueError(f"its patches have {_patch(module)} pixels")
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"{name} takes no pictures of {size} x {size} pixels ({reason}); give another --image-size, such as {_near(module, size)}."
        ) from None
    return True


def _set_torchvision_(module: "VisionTransformer", size: int) -> None:
    from torchvision.models.vision_transformer import interpolate_embeddings

    key = "encoder.pos_embedding"
    resized = interpolate_embeddings(size, module.patch_size, OrderedDict({key: module.encoder.pos_embedding.data}))
    module.encoder.pos_embedding = nn.Parameter(resized[key])
    module.image_size = size
    module.seq_length = resized[key].shape[1]


def _near(module: nn.Module, size: int) -> int:
    """The multiple of the network's patches that is nearest."""
    return max(1, round(size / _patch(module))) * _patch(module)


def _patch(module: nn.Module) -> int:
    """Edge of its patches in pixels; 1 where it names none."""
    patch = getattr(module, "patch_size", None) or getattr(getattr(module, "patch_embed", None), "patch_size", None) or 1
    return int(patch if isinstance(patch, int) else patch[0])
