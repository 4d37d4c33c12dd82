"""Find a network's classifier and put one for other classes in its place.

The classifier is the layer that gives the logits: in a head of several layers the last one, since those before it hold
pre-trained weights worth keeping. Who wants the whole head anew names it: ``head="classifier"``.
"""

import copy
import difflib
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from rekindle.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = {nn.Conv1d: nn.AdaptiveAvgPool1d, nn.Conv2d: nn.AdaptiveAvgPool2d, nn.Conv3d: nn.AdaptiveAvgPool3d}
CPU = torch.device("cpu")
"""New layers are drawn there, by the generator of all machines, and then go to the network's device."""

AUXILIARY = ("AuxLogits", "aux1", "aux2")
USUAL = ("fc", "classifier", "head", "heads", "linear", "last_linear", "output")
HEADLESS = "drawn_classifier"  # Attribute of a network whose weights came without a classifier: the one it has says nothing.


def find_classifier(module: nn.Module, name: str | None = None) -> list[str]:
    """Names of the layers whose outputs are the logits; two for a distilled network, whose logits are a mean.

    A timm network says which they are. Elsewhere it is the last linear or convolutional layer of the last child called
    `fc`, `classifier`, `head`, `heads`, `linear`, `last_linear` or `output`; failing those, of the network itself, in the
    order of definition.

    Args:
        module: The network.
        name: The head instead of a guess. A layer gives itself; a part made of layers gives all of its layers with parameters.

    Returns:
        One name, or two.

    Raises:
        UserError: If there is none, or `name` is unknown or holds parameters that cannot be drawn anew.

    Examples:
        >>> from rekindle.models import build
        >>> find_classifier(build("cifar_resnet8", weights="none", classes=10).module)
        ['linear']
    """
    if name:
        return _named(module, name)
    if is_headless(module):
        raise UserError("the network has no classifier yet; replace_classifier(network, classes) gives it one.")
    if _gives_features(module):
        raise UserError(f"{type(module).__name__} is an encoder that gives features, not class scores; choose another --model.")
    present = [item for item in stated_classifier(module) if _holds_layer(module, item)]
    if present:
        return [_last_layer(module, item) for item in present]
    usual = [child for child, _ in module.named_children() if child in USUAL and _holds_layer(module, child)]
    return [_last_layer(module, usual[-1] if usual else "")]


def source_classifier(source: nn.Module, head: Sequence[str]) -> str:
    """Name of the part of a pre-trained network that takes the features and gives the logits; "" if none or several do.

    It is the layer that `find_classifier` names; for a convolution inside the `classifier` of the network (SqueezeNet) it is
    that whole part, whose pooling makes logits of its maps.

    Args:
        source: The pre-trained network.
        head: Names of the new classifier's layers, which are the old one's where the kind was kept.

    Returns:
        A name of a module, or "".
    """
    if getattr(source, HEADLESS, False):
        return ""
    kept = [name for name in head if name in _layers(source)]
    try:
        names = kept if kept and len(kept) == len(head) else find_classifier(source)
    except UserError:
        return ""
    parent = names[0].rpartition(".")[0]
    if len(names) > 1:  # Layers of one part that is drawn anew as a whole; two classifiers side by side have no part around them.
        return parent if parent and all(name.startswith(f"{parent}.") for name in names) else ""
    whole = isinstance(source.get_submodule(names[0]), CONVOLUTIONS) and parent in USUAL
    return parent if whole else names[0]


def width_of_classifier(module: nn.Module) -> int:
    """Classes that a network tells apart; 0 where it has no classifier, or one that was never trained.

    Returns:
        A count, 0 or more.

    Examples:
        >>> from rekindle.models import build
        >>> width_of_classifier(build("cifar_resnet8", weights="none", classes=10).module)
        10
    """
    if getattr(module, HEADLESS, False):
        return 0
    try:
        layer = module.get_submodule(find_classifier(module)[-1])
    except UserError:
        return 0
    return int(layer.weight.shape[0])  # type: ignore[index]


def replace_classifier(module: nn.Module, classes: int, *, head: str | None = None, head_type: str = "auto") -> list[str]:
    """Put a fresh classifier for `classes` classes in place, drawn by its framework's default from the global generator.

    Args:
        module: Changed in place; auxiliary classifiers are removed, and a network without a classifier gets one.
        classes: At least 2.
        head: Name of the classifier, or of a part made of layers, which are then all drawn anew; None finds it.
        head_type: "own" keeps the kind of layer; "linear" puts pooling and one linear layer in place of a convolutional
            classifier and of the `classifier` that holds it; "auto" is "linear" where a ReLU follows the logits, as in SqueezeNet,
            under which a class whose logit falls below zero never learns again.

    Returns:
        Names of the new layers, the one that gives the logits last.

    Raises:
        UserError: If the network has no classifier that can be replaced.
    """
    if classes < 2:
        raise UserError(f"a classifier needs at least 2 classes, found {classes}.")
    if head_type not in ("auto", "own", "linear"):
        raise UserError(f"there is no head type {head_type!r}; choose auto, own or linear.")
    _remove_auxiliary(module)
    if not head and add_classifier(module, classes):
        return find_classifier(module)
    names = find_classifier(module, head)
    before, last = (names[:-1], names[-1:]) if head else ([], names)
    for name in before:
        _draw_anew(module, name)
    if _head_type(module, last, head_type) == "linear" and isinstance(module.get_submodule(last[-1]), CONVOLUTIONS):
        new = [_linear_head(module, name, classes) for name in last]
        gone = new[0].rpartition(".")[0] + "."
        return [name for name in before if not name.startswith(gone)] + new
    for name in last:
        set_output_width(module, name, classes)
    return names


def own_head_type(module: nn.Module, head: str | None = None, head_type: str = "auto") -> str:
    """ "own" or "linear": what "auto" stands for in a network.

    Args:
        module: The network, with a classifier or, as some of timm, without.
        head: Name of its classifier, as for `find_classifier`.
        head_type: "own", "linear", or "auto".

    Returns:
        Either of the two words; what was asked for, if it was not "auto".
    """
    return _head_type(module, [] if is_headless(module) else find_classifier(module, head), head_type)


def _head_type(module: nn.Module, names: Sequence[str], head_type: str) -> str:
    if head_type != "auto":
        return head_type
    return "linear" if any(is_rectified(module, name) for name in names) else "own"


def is_rectified(module: nn.Module, name: str) -> bool:
    """Whether the layer that gives the logits is directly followed by a ReLU in a sequence, as in SqueezeNet.

    Returns:
        True where negative logits become 0.
    """
    place, _, own = name.rpartition(".")
    holder = module.get_submodule(place)
    neighbours = pairwise(holder.named_children()) if isinstance(holder, nn.Sequential) else ()
    return any(name == own and isinstance(after, nn.ReLU) for (name, _), (_, after) in neighbours)


def add_classifier(module: nn.Module, classes: int) -> bool:
    """Give a timm network that was built without a classifier one; False if it had one.

    Returns:
        True where a classifier was made.
    """
    if not is_headless(module):
        return False
    module.reset_classifier(classes)  # type: ignore[operator]
    return True


def set_output_width(module: nn.Module, name: str, classes: int) -> None:
    """Replace the layer `name` by a fresh one of the same kind, device and type with `classes` outputs."""
    old = module.get_submodule(name)
    weight = old.weight
    assert isinstance(weight, torch.Tensor)
    with CPU:
        new = _fresh(old, classes, name)
    _put(module, name, new.to(weight.device, weight.dtype).train(old.training))
    _announce(module, name, classes)


def _fresh(old: nn.Module, classes: int, name: str) -> nn.Module:
    """A layer like `old`, made by its own constructor, so that its framework's default draws the weights."""
    kind: Callable[..., nn.Module] = type_before_parametrizations(old)
    bias = getattr(old, "bias", None) is not None
    try:
        if isinstance(old, CONVOLUTIONS):
            if old.groups != 1:
                raise UserError(f"the classifier {name} is a grouped convolution, which cannot be resized; use --head-type linear.")
            shape = {"stride": old.stride, "padding": old.padding, "dilation": old.dilation}
            return kind(old.in_channels, classes, old.kernel_size, bias=bias, **shape)
        if isinstance(old, nn.Linear) and type(old).forward is nn.Linear.forward:
            return nn.Linear(old.in_features, classes, bias=bias)
        return kind(old.in_features, classes, bias=bias)
    except TypeError as error:
        raise UserError(f"the classifier {name} is a {type(old).__name__}, which cannot be made anew ({error}); give --head.") from None


def _linear_head(module: nn.Module, name: str, classes: int) -> str:
    """Pooling, flattening and a linear layer for a convolution, or for the whole head if that is a sequence around it."""
    layer = module.get_submodule(name)
    assert isinstance(layer, CONVOLUTIONS)
    parent = name.rpartition(".")[0]
    pool = next(made for kind, made in POOLS.items() if isinstance(layer, kind))
    with CPU:
        linear = nn.Linear(layer.in_channels, classes).to(layer.weight.device, layer.weight.dtype)
    parts: list[nn.Module] = [pool(1), nn.Flatten(), linear]
    whole = parent in USUAL and isinstance(module.get_submodule(parent), nn.Sequential)
    if not whole:  # What follows the convolution still expects a map, so it gets one of a single position.
        parts.append(nn.Unflatten(1, (classes, *(1 for _ in layer.kernel_size))))
    place = parent if whole else name
    _put(module, place, nn.Sequential(*parts).train(layer.training))
    _announce(module, place, classes)
    return f"{place}.2"


def _draw_anew(module: nn.Module, name: str) -> None:
    """Reset a copy, so that a tensor shared with the rest of the network keeps its pre-trained values there."""
    old = module.get_submodule(name)
    new = copy.deepcopy(old).cpu()
    new.reset_parameters()  # type: ignore[operator]
    _put(module, name, new.to(next(old.parameters()).device))


def _put(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def _announce(module: nn.Module, name: str, classes: int) -> None:
    """Correct the class count that the network, and the head around the layer, keep as an attribute."""
    for owner in (module, module.get_submodule(name.rpartition(".")[0])):
        if isinstance(getattr(owner, "num_classes", None), int):
            owner.num_classes = classes  # type: ignore[assignment]


def _remove_auxiliary(module: nn.Module) -> None:
    """Drop the training-time side classifiers of GoogLeNet and Inception: they are no part of the network that predicts."""
    if not isinstance(getattr(module, "aux_logits", None), bool):
        return
    for name in AUXILIARY:
        if isinstance(getattr(module, name, None), nn.Module):
            setattr(module, name, None)
    module.aux_logits = False  # type: ignore[assignment]


def is_headless(module: nn.Module) -> bool:
    """Whether this is a timm network that gives features, and can be given a classifier.

    Returns:
        True where `add_classifier` can be asked.
    """
    return _gives_features(module) and hasattr(module, "reset_classifier")


def _gives_features(module: nn.Module) -> bool:
    classes = getattr(module, "num_classes", None)
    return isinstance(classes, int) and classes == 0


def stated_classifier(module: nn.Module) -> list[str]:
    """What a timm network's configuration calls its classifier, and its distillation head where that names one of two only.

    Returns:
        One name or two; none where the configuration says nothing.
    """
    config = getattr(module, "pretrained_cfg", None)
    stated = config.get("classifier") if isinstance(config, dict) else None
    names = [stated] if isinstance(stated, str) else list(stated or [])
    given = module.get_classifier() if hasattr(module, "get_classifier") else None  # type: ignore[operator]
    pair = given if isinstance(given, tuple | list) else ()
    parts = [name for name, part in module.named_modules() if any(part is item for item in pair)]
    return names + [part for part in parts if not any(f"{name}.".startswith(f"{part}.") for name in names)]


def _named(module: nn.Module, name: str) -> list[str]:
    parts = dict(module.named_modules())
    if name not in parts:
        near = difflib.get_close_matches(name, list(parts), n=3)
        found = [] if _gives_features(module) else find_classifier(module)
        options = list(dict.fromkeys([*found, *near, *(child for child, _ in module.named_children())]))
        raise UserError(f"the network has no part {name!r} to be its head; candidates are {', '.join(options)}.")
    leaves = [f"{name}.{leaf}".rstrip(".") for leaf, part in parts[name].named_modules() if [*part.parameters(recurse=False)]]
    rigid = [leaf for leaf in leaves if not hasattr(parts[leaf], "reset_parameters")]
    if rigid:
        raise UserError(f"{rigid[0]} in the head {name!r} is a {type(parts[rigid[0]]).__name__}, which cannot be drawn anew; name a layer.")
    if not leaves or leaves[-1] not in _layers(module):
        raise UserError(f"{name!r} does not end in a linear or convolutional layer; candidates are {', '.join(find_classifier(module))}.")
    return leaves


def _layers(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_modules() if isinstance(part, (nn.Linear, *CONVOLUTIONS)) or _linear_like(part)]


def _linear_like(part: nn.Module) -> bool:
    return isinstance(getattr(part, "in_features", None), int) and isinstance(getattr(part, "weight", None), torch.Tensor)


def _holds_layer(module: nn.Module, name: str) -> bool:
    return name in dict(module.named_modules()) and bool(_layers(module.get_submodule(name)))


def _last_layer(module: nn.Module, name: str) -> str:
    found = _layers(module.get_submodule(name))
    if not found:
        raise UserError("the network holds no linear or convolutional layer to be a classifier; name its head with --head.")
    return f"{name}.{found[-1]}".strip(".")
