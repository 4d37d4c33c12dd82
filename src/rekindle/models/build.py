"""Networks by name, with pre-trained weights from their library or from a file."""

import difflib
import fnmatch
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from rekindle.errors import UserError
from rekindle.files import expand
from rekindle.method import Source
from rekindle.models import boxed
from rekindle.models.cifar_resnet import CifarResNet
from rekindle.models.classifier import (
    replace_classifier,
)  # fmt: skip
from rekindle.models.hub import download_errors, offline_if_unreachable, weights_only
from rekindle.models.input_size import set_input_size_
from rekindle.models.weights import fit_weights, load_weights, read_weights
from rekindle.records import MODEL

Triple = tuple[float, float, float]
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
TINY = Path(__file__).resolve().parents[1] / "assets" / "tiny.safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """A network with its source classifier, and how its weights want their input.

    Attributes:
        name: As `build` was asked.
        module: The network.
        mean: Per channel, of values in [0, 1].
        std: Per channel.
        interpolation: "bilinear", "bicubic" or another of `rekindle.data.cache.decode`.
        input_size: Edge of the crop that the weights were trained on.
        pretrained: Where the weights came from, in words.
        note: A sentence on what was found in a file of weights, or "".
    """

    name: str
    module: nn.Module
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    interpolation: str = "bilinear"
    input_size: int = 224
    pretrained: str = "random weights"
    note: str = ""


def build(name: str, *, weights: str | Path = "default", classes: int | None = None, image_size: int = 0) -> LoadedModel:
    """Build a network, with its pre-trained classifier where the weights have one.

    Args:
        name: A timm name ("resnet50", "resnet50.tv_in1k"), "torchvision:NAME", "cifar_resnet20" (or another 6n + 2), or "tiny".
        weights: "default" for the library's own (timm's and torchvision's come over the network, but for those of
            "tf_efficientnet_lite0", which are installed), "none" for random ones, or a .safetensors or .pth file or a run folder; its
            classifier may have any width, or be absent.
        classes: Width of the classifier without pre-trained weights; None keeps the network's own.
        image_size: Edge of the pictures that it will see, in pixels; 0 is that of its weights. See `set_input_size_`.

    Returns:
        The network, the preprocessing that its weights want, and whether it was pre-trained.

    Raises:
        UserError: If the name is unknown, the weights cannot be had, they do not fit, or the network takes no pictures of this size.
    """
    loaded = _build(name, str(weights), classes)
    if image_size not in (0, loaded.input_size):
        set_input_size_(loaded.module, name, image_size)
    return loaded


def _build(name: str, weights: str, classes: int | None) -> LoadedModel:
    if weights not in ("default", "none"):
        return _with_file(name, Path(weights))
    pretrained = weights == "default"
    if name.startswith("torchvision:"):
        return _torchvision(name, pretrained, classes)
    if name == "tiny":
        return _tiny(pretrained, classes)
    if name.startswith("cifar_resnet"):
        depth = _depth(name)
        if pretrained:
            raise UserError(f"{name} has no weights of its own; give --weights FILE.safetensors, or --weights none for random ones.")
        return LoadedModel(name, CifarResNet(depth, classes or 10), input_size=32)
    return _timm(name, pretrained, classes)


def _with_file(name: str, path: Path) -> LoadedModel:
    tensors = read_weights(path)
    plain = _at_size_of(_build(name, "none", None), path)
    told = fit_weights(plain.module, tensors, path)
    return replace(plain, pretrained=f"weights of {path.name}", note=f"{path} holds the network {told}." if told else "")


def _at_size_of(plain: LoadedModel, path: Path) -> LoadedModel:
    """A network of fixed input size, such as a vision transformer, at that of the run whose weights it will get."""
    beside = expand(path) / "model.json"
    size = MODEL.read(beside)["image_size"] if beside.is_file() else plain.input_size
    if size == plain.input_size or not set_input_size_(plain.module, plain.name, size):
        return plain
    return replace(plain, input_size=size)


def _tiny(pretrained: bool, classes: int | None) -> LoadedModel:
    module = CifarResNet(20, classes or 10)
    if pretrained and not TINY.is_file():
        raise UserError("rekindle is installed without the weights of tiny; install it again, or give --weights none or FILE.safetensors.")
    if pretrained:
        load_weights(module, TINY)
    return LoadedModel("tiny", module, input_size=32, pretrained="CIFAR-10 weights of this package" if pretrained else "random weights")


def _torchvision(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    import torchvision

    short = name.removeprefix("torchvision:")
    known = torchvision.models.list_models(module=torchvision.models)
    if short not in known:
        raise UserError(_unknown(name, [f"torchvision:{item}" for item in known]))
    choices = torchvision.models.get_model_weights(short)
    choice = choices.DEFAULT if len(list(choices)) else None
    if pretrained and choice is None:
        raise UserError(f"torchvision has no weights for {short}; give --weights FILE.safetensors or --weights none.")
    recipe = choice.transforms() if choice is not None else None
    size = recipe.crop_size[0] if recipe is not None else 224
    options = {"weights": choice} if pretrained else _torchvision_options(short, size, classes)
    with download_errors(name), weights_only():
        module = torchvision.models.get_model(short, **options)
    origin = f"torchvision's {choice}" if pretrained else "random weights"
    if recipe is None:
        return LoadedModel(name, module, pretrained=origin)
    return LoadedModel(name, module, tuple(recipe.mean), tuple(recipe.std), recipe.interpolation.value, size, origin)


def _torchvision_options(short: str, size: int, classes: int | None) -> dict[str, Any]:
    """Arguments that make a network without weights the same as the pre-trained one, so that trained weights fit it later."""
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if short in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False, "transform_input": True}
    if short.startswith("vit_"):
        options["image_size"] = size
    return options


def _timm(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    import timm
    from timm.data.config import resolve_model_data_config

    if not timm.is_model(name):
        raise UserError(_unknown(name, timm.list_models()))
    options: dict[str, Any] = {} if classes is None or pretrained else {"num_classes": classes}
    installed = boxed.weights_file() if pretrained and name == boxed.NAME else None
    fetched = pretrained and installed is None
    with download_errors(name), weights_only(), offline_if_unreachable(fetched):
        module = timm.create_model(name, pretrained=fetched, **options)
    if installed is not None:
        boxed.load_boxed(module, installed)
    config = resolve_model_data_config(module)
    tag = module.pretrained_cfg.get("tag") or "default"  # type: ignore[operator, union-attr]
    origin = boxed.ORIGIN if installed is not None else f"timm's {tag} weights" if pretrained else "random weights"
    return LoadedModel(name, module, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["input_size"][-1], origin)


def _depth(name: str) -> int:
    match = re.fullmatch(r"cifar_resnet(\d+)", name)
    depth = int(match[1]) if match else 0
    if depth < 8 or (depth - 2) % 6:
        raise UserError(f"there is no {name}; a CIFAR ResNet has 6n + 2 layers: cifar_resnet20, cifar_resnet32, cifar_resnet56 and so on.")
    return depth


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, [*known, "cifar_resnet20", "cifar_resnet56", "tiny"], n=3)
    hint = f"did you mean {' or '.join(near)}" if near else "try resnet50, torchvision:resnet50, cifar_resnet20 or tiny"
    return f"there is no model {name!r}; {hint}? `rekindle models PATTERN` lists them."


def load(
    name: str, classes: int, *, weights: str | Path = "default", head: str | None = None, head_type: str = "auto", image_size: int = 0
) -> tuple[Source, nn.Module]:
    """A frozen copy of a pre-trained network, and the network itself with a fresh classifier.

    Args:
        name: See `build`.
        classes: Width of the fresh classifier, at least 2.
        weights: See `build`.
        head: Name of the classifier; None finds it.
        head_type: See `replace_classifier`.
        image_size: See `build`.

    Returns:
        (source, model): the source frozen and in evaluation mode, with its own classifier where it has one; the model on the CPU.

    Examples:
        >>> source, model = load("cifar_resnet8", classes=3, weights="none")  # Or "torchvision:resnet50", with its own weights.
        >>> tuple(model.linear.weight.shape)
        (3, 64)
    """
    module = build(name, weights=weights, image_size=image_size).module
    source = Source(module)
    replace_classifier(module, classes, head=head, head_type=head_type)
    return source, module


def names(pattern: str = "*") -> list[str]:
    """Names of networks that match a shell pattern, ours first.

    Returns:
        Names, ours first, then those of timm and torchvision.
    """
    import timm
    import torchvision

    ours = ["tiny", "cifar_resnet20", "cifar_resnet56"]
    theirs = [f"torchvision:{item}" for item in torchvision.models.list_models(module=torchvision.models)]
    return fnmatch.filter([*ours, *theirs, *timm.list_models()], pattern)
