"""What a network is made of, told from its modules: residual blocks, transformer blocks, channels, the layers that are watched.

Also its logits, wherever it returns them.

A residual block, y = shortcut(x) + branch(x), is known by class name and parts, so that neither timm nor torchvision need be there:

- a part called `drop_path`, `drop_path1` and so on, `attn_drop_path` and the like (timm), or `stochastic_depth` or
  `stochastic_dropout` (torchvision): it is given a whole branch, and does nothing, or is None, unless it was asked for;
- the classes of `ENDS`, whose branch ends in the part named there.

A block whose shapes leave no room for a shortcut counts as none.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.hooks import INPUT
from rekindle.method import Net, require

STEM = "stem"
ATTENTION = ("attn", "self_attention", "self_attn", "attention")
CHANNELS_FIRST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
SLOT = re.compile(r"(\w+_)?drop_path\d*|stochastic_(depth|dropout)")
ENDS: dict[str, tuple[str, ...]] = {  # {class: parts, the first of which that exists ends the branch; "+" joins those of two branches}
    "BasicBlock": ("bn2",),
    "Bottleneck": ("bn3",),
    "Block": ("bn2", "rep"),
    "EncoderBlock": ("dropout+mlp",),
    "InvertedResidual": ("conv", "block"),
    "_InvertedResidual": ("layers",),
    "ResBottleneckBlock": ("f",),
    "ResNestBottleneck": ("bn3",),
    "DlaBasic": ("bn2",),
    "DlaBottleneck": ("bn3",),
    "DlaBottle2neck": ("bn3",),
    "SEResNetBlock": ("se_module",),
    "SEBottleneck": ("se_module",),
    "SEResNetBottleneck": ("se_module",),
    "SEResNeXtBottleneck": ("se_module",),
    "Residual": ("fn", "m"),
    "ResidualDrop": ("m",),
    "ResidualBlock": ("main",),
    "RepViTBlock": ("channel_mixer",),
    "RepVitDownsample": ("ffn",),
    "RepDepthwiseSeparable": ("pw_conv",),
    "Block35": ("conv2d",),
    "Block17": ("conv2d",),
    "Block8": ("conv2d",),
}
NO_BLOCK = ("DenseBlock", "Sequential")  # A dense block of RDNet has a slot and no shortcut; a sequence belongs to the block around it.
MISPLACED = ("ResNestBottleneck",)  # Its slot is given the block's input.
FLAGS = ("has_skip", "use_shortcut", "use_res_connect", "apply_residual", "add_identity", "residual")
PARALLEL = ("attns", "ffns")  # Several branches side by side, each with a slot of its own.

SHORTCUTS = ("downsample", "shortcut", "proj", "identity", "skip", "skipbn")
BESIDE: dict[str, tuple[str, ...]] = {  # {class: parts that every input passes, besides the shortcut's own}
    "TinyVitBlock": ("local_conv",),
    "RepMixerBlock": ("token_mixer",),
    "LevitDownsample": ("attn_downsample",),
    "PreBottleneck": ("norm1",),
    "PreXceptionModule": ("norm",),
    "RepViTBlock": ("token_mixer", "se"),
    "RepVitDownsample": ("pre_block", "spatial_downsample", "channel_downsample"),
    "NextConvBlock": ("patch_embed",),
    "NextTransformerBlock": ("patch_embed", "projection"),
}


@dataclass(frozen=True, eq=False)
class ResidualBlock:
    """One block.

    Attributes:
        name: Of the module in the network.
        module: The block.
        ends: Modules whose outputs are its whole branches; most have one, transformer blocks two.
        slots: Those of them that are there for stochastic depth alone.
        norms: BatchNorms inside the branches; those of the shortcut, and what every input passes, left out.
    """

    name: str
    module: nn.Module
    ends: tuple[nn.Module, ...]
    slots: tuple[nn.Module, ...]
    norms: tuple[nn.Module, ...]


def residual_blocks(model: nn.Module, owner: str) -> list[ResidualBlock]:
    """The network's residual blocks, from input to output. Slots that are None are filled with identities.

    Args:
        model: The network.
        owner: The method's name, for the message.

    Returns:
        The blocks, each with the module and the slot where its branch ends.

    Raises:
        ValueError: If there is none.
    """
    found = [block for name, module in model.named_modules() for block in [_block(name, module)] if block is not None]
    require(
        bool(found),
        f"{owner}: {type(model).__name__} has no residual block that is known (`rekindle methods {owner}` lists them); "
        "take a residual network, such as resnet18.",
    )
    return found


def _block(name: str, module: nn.Module) -> ResidualBlock | None:
    kind = type(module).__name__
    if kind in NO_BLOCK or not _has_shortcut(module):
        return None
    slots = () if kind in MISPLACED else _slots(module)
    ends = slots or _listed(module)
    return ResidualBlock(name, module, ends, slots, _norms(module)) if ends else None


def _slots(block: nn.Module) -> tuple[nn.Module, ...]:
    if getattr(block, "drop_path", block) is None:
        block.drop_path = nn.Identity()
    holders = [block, *(part for name in PARALLEL for part in getattr(block, name, ()))]
    return tuple(part for holder in holders for name, part in holder.named_children() if SLOT.fullmatch(name))


def _listed(block: nn.Module) -> tuple[nn.Module, ...]:
    for names in ENDS.get(type(block).__name__, ()):
        parts = [getattr(block, name, None) for name in names.split("+")]
        if all(isinstance(part, nn.Module) for part in parts):
            return tuple(parts)  # type: ignore[arg-type]
    return ()


def _has_shortcut(block: nn.Module) -> bool:
    """Whether the block adds something to its branch, as its own flags and parts tell."""
    kind, package = type(block).__name__, type(block).__module__.rpartition(".")[2]
    if hasattr(block, "no_skip"):  # An aligned Xception block, whose `shortcut` may be None for the identity.
        return not block.no_skip
    if any(getattr(block, flag, None) is False for flag in FLAGS):
        return False
    needed = {"regnet": "downsample", "RepVggBlock": "identity", "MobileOneBlock": "identity"}
    part = needed.get(package) or needed.get(kind) or "shortcut"
    return getattr(block, part, block) is not None and getattr(block, "reparam_conv", None) is None


def _norms(block: nn.Module) -> tuple[nn.Module, ...]:
    beside = [*SHORTCUTS, *BESIDE.get(type(block).__name__, ())]
    if type(block).__name__.startswith("PreAct") and getattr(block, "downsample", None) is not None:
        beside.append("norm1")  # The shortcut starts behind it.
    left_out = {id(part) for name, child in block.named_children() if name in beside for part in child.modules()}
    return tuple(part for part in block.modules() if isinstance(part, _BatchNorm) and id(part) not in left_out)


def transformer_blocks(model: nn.Module) -> list[str]:
    """Names of the outermost modules that hold attention and a LayerNorm, from input to output.

    Returns:
        Names of modules; none for a convolutional network.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and _is_transformer_block(module):
            found.append(name)
    return found


def _is_transformer_block(module: nn.Module) -> bool:
    attends = any(name in ATTENTION and any(True for _ in child.parameters()) for name, child in module.named_children())
    return attends and any(isinstance(part, nn.LayerNorm | nn.RMSNorm) for part in module.modules())


def channel_axis(activation: Tensor, net: Net, layer: str) -> int:
    """The dimension of the channels: last in (B, N, D) tokens and in the maps of networks that work in NHWC, else 1.

    Args:
        activation: (B, D), (B, N, D), (B, C, H, W) or (B, H, W, C).
        net: A timm network says that it works in NHWC by its attribute `output_fmt`; torchvision's Swin does without saying.
        layer: What gave it. Convolutions, BatchNorm and pooling have their channels first in any network.

    Returns:
        A dimension, from 1 to the last.
    """
    if activation.ndim == 2 or isinstance(net.model.get_submodule(layer.removesuffix(INPUT)), CHANNELS_FIRST):
        return 1
    return activation.ndim - 1 if activation.ndim == 3 or _works_in_nhwc(net.model) else 1


def _works_in_nhwc(model: nn.Module) -> bool:
    kinds = [(kind.__name__, kind.__module__.partition(".")[0]) for kind in type(model).__mro__]
    return "NHWC" in str(getattr(model, "output_fmt", "")).upper() or ("SwinTransformer", "torchvision") in kinds


def logits(outputs: Any) -> Tensor:
    """A network's (B, C) logits, also where it returns an object that holds them, as those of transformers do.

    Returns:
        (B, C), with its graph.

    Examples:
        >>> import torch
        >>> tuple(logits(torch.zeros(2, 3)).shape)
        (2, 3)
    """
    for found in (outputs, getattr(outputs, "logits", None)):
        if isinstance(found, Tensor):
            return found
    raise ValueError(f"the network returned a {type(outputs).__name__}; wanted are logits, or an object with .logits.")


def groups_convolutions(model: nn.Module) -> bool:
    """Whether any convolution is grouped, such as the depthwise ones of MobileNets, EfficientNets and ConvNeXts.

    Returns:
        True for EfficientNet or ResNeXt, False for ResNet, SqueezeNet or ViT.
    """
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())


def has_batchnorm(model: nn.Module) -> bool:
    """Whether any layer is a BatchNorm.

    Returns:
        True for ResNet, False for SqueezeNet or ViT.
    """
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def normalises(model: nn.Module) -> bool:
    """Whether any layer is a normalisation, by its name: BatchNorm2d, LayerNorm, RMSNorm and what timm derives from them.

    Returns:
        True for ResNet or ViT, False for SqueezeNet or VGG.

    Examples:
        >>> from torch import nn
        >>> normalises(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))), normalises(nn.Linear(2, 2))
        (True, False)
    """
    return any("Norm" in type(module).__name__ for module in model.modules())


def watched_layers(net: Net) -> dict[str, nn.Parameter]:
    """{layer: its weight}: the last 3x3 convolution of each stage behind the stem, of those that train.

    A network without any, such as a transformer, has the last weight matrix of each stage watched instead.

    Returns:
        Parameters by the name of their layer, from input to output.
    """
    modules, parameters = dict(net.model.named_modules()), net.parameters()
    body = {stage: [name for name in names if parameters[name].requires_grad] for stage, names in net.stages.items() if stage != STEM}
    small = {name for name in parameters if getattr(modules[name.rpartition(".")[0]], "kernel_size", None) == (3, 3)}
    matrices = {name for name, parameter in parameters.items() if parameter.ndim > 1}
    wanted = matrices & small if any(name in small for names in body.values() for name in names) else matrices
    last = [[name for name in names if name in wanted][-1:] for names in body.values()]
    return {name.rpartition(".")[0]: parameters[name] for names in last for name in names}
