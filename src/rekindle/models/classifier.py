"""Find a network's classifier and put one for other classes in its place.

The classifier is the layer that gives the logits: in a head of several layers the last one, since those before it hold
pre-trained weights worth keeping; `head` names another.
"""

from collections.abc import Callable

import torch
from torch import nn

from rekindle.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
AUXILIARY = ("AuxLogits", "aux1", "aux2", "aux_logits")
USUAL = ("fc", "classifier", "head", "heads", "linear", "last_linear", "output")


def find_classifier(module: nn.Module, name: str | None = None) -> list[str]:
    """Names of the layers whose outputs are the logits.

    A timm network says which they are; elsewhere the last linear or convolutional layer of `fc`, `classifier`, `head`,
    `heads`, or failing those of the network itself, in the order of definition.

    Args:
        module: The network.
        name: A module that is, or that ends in, the classifier.

    Raises:
        UserError: If there is none, or `name` is unknown.
    """
    if name:
        if name not in dict(module.named_modules()):
            tops = [child for child, _ in module.named_children()]
            raise UserError(f"the network has no module {name!r} to be its head; its parts are {', '.join(tops)}.")
        return [_last_layer(module, name)]
    config = getattr(module, "pretrained_cfg", None)
    stated = config.get("classifier") if isinstance(config, dict) else None
    if stated:
        names = [stated] if isinstance(stated, str) else list(stated)
        present = [item for item in names if _is_layer_or_holds_one(module, item)]
        if present:
            return [_last_layer(module, item) for item in present]
    for usual in USUAL:
        if isinstance(getattr(module, usual, None), nn.Module) and _is_layer_or_holds_one(module, usual):
            return [_last_layer(module, usual)]
    return [_last_layer(module, "")]


def replace_classifier(module: nn.Module, classes: int, *, head: str | None = None, head_type: str = "auto") -> list[str]:
    """Put a fresh classifier for `classes` classes in place, drawn by its framework's default from the global generator.

    Args:
        module: Changed in place; auxiliary classifiers are removed.
        classes: At least 2.
        head: Name of the classifier; None finds it.
        head_type: "auto" keeps the kind of layer; "linear" puts pooling and one linear layer in place of a convolutional
            classifier and whatever surrounds it (SqueezeNet's own ends in dropout and a ReLU on the logits).

    Returns:
        Names of the new layers.

    Raises:
        UserError: If the network has no classifier that can be replaced.
    """
    if classes < 2:
        raise UserError(f"a classifier needs at least 2 classes, found {classes}.")
    _remove_auxiliary(module)
    if not head and getattr(module, "num_classes", None) == 0 and hasattr(module, "reset_classifier"):
        module.reset_classifier(classes)
        return find_classifier(module)
    names = find_classifier(module, head)
    if head_type == "linear":
        return [_linear_head(module, names[-1], classes)]
    for name in names:
        set_output_width(module, name, classes)
    return names


def output_width(layer: nn.Module) -> int:
    """Number of outputs of a linear or convolutional layer."""
    width = getattr(layer, "out_features", None) or getattr(layer, "out_channels", None)
    assert isinstance(width, int)
    return width


def set_output_width(module: nn.Module, name: str, classes: int) -> None:
    """Replace the layer `name` by a fresh one of the same kind with `classes` outputs."""
    old = module.get_submodule(name)
    weight = old.weight
    assert isinstance(weight, torch.Tensor)
    bias = getattr(old, "bias", None) is not None
    with torch.device(weight.device):
        if isinstance(old, CONVOLUTIONS):
            if old.groups != 1:
                raise UserError(f"the classifier {name} is a grouped convolution, which cannot be given {classes} outputs; use --head-type linear.")
            kind: Callable[..., nn.Module] = type(old)
            new = kind(old.in_channels, classes, old.kernel_size, old.stride, old.padding, old.dilation, bias=bias)
        elif _plain_linear(old):
            new = nn.Linear(old.in_features, classes, bias=bias)  # type: ignore[arg-type]
        else:
            new = _same_kind(old, classes, bias, name)
    _put(module, name, new.to(weight.dtype))
    for owner in [module, *(module.get_submodule(name.rsplit(".", 1)[0]) for _ in [0] if "." in name)]:
        if isinstance(getattr(owner, "num_classes", None), int):
            owner.num_classes = classes  # type: ignore[assignment]


def _plain_linear(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear or type(layer).forward is nn.Linear.forward or type(layer).__name__ in ("NonDynamicallyQuantizableLinear", "Linear")


def _same_kind(old: nn.Module, classes: int, bias: bool, name: str) -> nn.Module:
    """A linear layer of another class, such as timm's normalised ones: made by its own constructor."""
    kind: Callable[..., nn.Module] = type(old)
    try:
        return kind(old.in_features, classes, bias=bias)
    except TypeError as error:
        raise UserError(f"the classifier {name} is a {type(old).__name__}, which cannot be made anew ({error}); name another with --head.") from None


def _linear_head(module: nn.Module, name: str, classes: int) -> str:
    layer = module.get_submodule(name)
    if isinstance(layer, nn.Linear):
        set_output_width(module, name, classes)
        return name
    top = name.split(".")[0]
    assert isinstance(layer, CONVOLUTIONS)
    device = layer.weight.device
    _put(module, top, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(layer.in_channels, classes, device=device)))
    return f"{top}.2"


def _put(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def _remove_auxiliary(module: nn.Module) -> None:
    """Drop the training-time side classifiers of GoogLeNet and Inception: they are no part of the network that predicts."""
    for name in AUXILIARY:
        if isinstance(getattr(module, name, None), nn.Module):
            setattr(module, name, None)
    if isinstance(getattr(module, "aux_logits", None), bool):
        module.aux_logits = False  # type: ignore[assignment]


def _layers(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, (nn.Linear, *CONVOLUTIONS)) or _linear_like(part)]


def _linear_like(part: nn.Module) -> bool:
    return isinstance(getattr(part, "in_features", None), int) and isinstance(getattr(part, "weight", None), torch.Tensor)


def _is_layer_or_holds_one(module: nn.Module, name: str) -> bool:
    return name in dict(module.named_modules()) and bool(_layers(module.get_submodule(name)))


def _last_layer(module: nn.Module, name: str) -> str:
    found = _layers(module.get_submodule(name))
    if not found:
        where = f"its head {name!r}" if name else "the network"
        raise UserError(f"{where} holds no linear or convolutional layer to be a classifier; name one with --head.")
    return f"{name}.{found[-1]}".strip(".")
