"""Networks by name, with pre-trained weights from their library or from a file."""

import difflib
import fnmatch
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rekindle.errors import UserError
from rekindle.method import Source
from rekindle.models.classifier import find_classifier, replace_classifier, set_output_width
from rekindle.models.cifar_resnet import CifarResNet

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
        interpolation: "bilinear", "bicubic" or another of `rekindle.data.decode`.
        input_size: Edge of the crop that the weights were trained on, where it is known.
        pretrained: Where the weights came from, in words.
    """

    name: str
    module: nn.Module
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD
    interpolation: str = "bilinear"
    input_size: int | None = 224
    pretrained: str = "random weights"


def build(name: str, *, weights: str | Path = "default", classes: int | None = None) -> LoadedModel:
    """Build a network, with its pre-trained classifier where the weights have one.

    Args:
        name: A timm name ("resnet50", "resnet50.tv_in1k"), "torchvision:NAME", "cifar_resnet20" (or another 6n + 2), or "tiny".
        weights: "default" for the library's own (timm's and torchvision's come over the network), "none" for random ones,
            or a .safetensors file, whose classifier may have any width.
        classes: Width of the classifier without pre-trained weights; None keeps the network's own.

    Raises:
        UserError: If the name is unknown, the weights cannot be had, or they do not fit.
    """
    weights = str(weights)
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
            raise UserError(f"{name} has no weights of its own: name a file with --weights FILE.safetensors, or --weights none to start from random ones.")
        return LoadedModel(name, CifarResNet(depth, classes or 10), input_size=32)
    return _timm(name, pretrained, classes)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file, widening or narrowing the classifier to the file's.

    Raises:
        UserError: If the file is missing, damaged, pickled, or its keys or shapes differ.
    """
    tensors = read_weights(path)
    state = module.state_dict()
    _match_classifier(module, tensors, state)
    state = module.state_dict()
    missing = [key for key in state if key not in tensors and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in tensors if key not in state]
    shapes = [f"{k} is {tuple(tensors[k].shape)}, wanted {tuple(v.shape)}" for k, v in state.items() if k in tensors and tensors[k].shape != v.shape]
    faults = [f"it lacks {_some(missing)}"] if missing else []
    faults += [f"it has {_some(unexpected)}, unknown to the network"] if unexpected else []
    faults += [_some(shapes)] if shapes else []
    if faults:
        raise UserError(f"{path} does not fit the network: {'; '.join(faults)}. Give the --model that the file was made with.")
    module.load_state_dict(tensors, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; nothing else is read, since unpickling can run code."""
    if not path.is_file():
        raise UserError(f"--weights {path} is no file; give a .safetensors file, 'default' or 'none'.")
    if path.suffix != ".safetensors":
        raise UserError(f"--weights {path} is not a .safetensors file, and pickled files can run code; convert it with safetensors.torch.save_file.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"--weights {path} is damaged or no safetensors file ({error}); fetch it again.") from None


def _with_file(name: str, path: Path) -> LoadedModel:
    read_weights(path)
    plain = build(name, weights="none")
    load_weights(plain.module, path)
    return LoadedModel(name, plain.module, plain.mean, plain.std, plain.interpolation, plain.input_size, f"weights of {path.name}")


def _match_classifier(module: nn.Module, tensors: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    for head in find_classifier(module):
        key = f"{head}.weight"
        found = tensors.get(key)
        if found is not None and found.shape[:1] != state[key].shape[:1] and found.shape[1:] == state[key].shape[1:]:
            set_output_width(module, head, found.shape[0])


def _tiny(pretrained: bool, classes: int | None) -> LoadedModel:
    module = CifarResNet(20, classes or 10)
    if pretrained:
        load_weights(module, TINY)
    return LoadedModel("tiny", module, input_size=32, pretrained="CIFAR-10 weights of this package" if pretrained else "random weights")


def _torchvision(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    import torchvision

    short = name.removeprefix("torchvision:")
    known = torchvision.models.list_models(module=torchvision.models)
    if short not in known:
        raise UserError(_unknown(name, [f"torchvision:{item}" for item in known]))
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if short in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    enum = torchvision.models.get_model_weights(short)
    choice = enum.DEFAULT if len(list(enum)) else None
    if pretrained and choice is None:
        raise UserError(f"torchvision has no weights for {short}; give --weights FILE.safetensors or --weights none.")
    with _hub(name):
        module = torchvision.models.get_model(short, weights=choice if pretrained else None, **({} if pretrained else options))
    recipe = choice.transforms() if choice is not None else None
    size = recipe.crop_size[0] if recipe is not None else 224
    interpolation = recipe.interpolation.value if recipe is not None else "bilinear"
    return LoadedModel(
        name, module, interpolation=interpolation, input_size=size, pretrained=f"torchvision's {choice}" if pretrained else "random weights"
    )


def _timm(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name):
        raise UserError(_unknown(name, timm.list_models()))
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    with _hub(name), _offline_if_unreachable(pretrained):
        module = timm.create_model(name, pretrained=pretrained, **options)
    config = resolve_model_data_config(module)
    tag = module.pretrained_cfg.get("tag") or "default"
    return LoadedModel(
        name, module, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["input_size"][-1],
        f"timm's {tag} weights" if pretrained else "random weights",
    )  # fmt: skip


@contextmanager
def _offline_if_unreachable(needed: bool) -> Iterator[None]:
    """Let the hub's client look into its cache alone where its host has no address, instead of trying for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if needed and not before and not getproxies() and not _has_address(urlparse(constants.ENDPOINT).hostname or ""):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


@contextmanager
def _hub(name: str) -> Iterator[None]:
    """Turn every way in which a download fails into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _is_download(error):
            raise UserError(f"{name} cannot be built: {_first_line(error)}") from error
        raise UserError(
            f"the weights of {name} cannot be downloaded ({_first_line(error)}); give a file with --weights FILE.safetensors, "
            f"start from random ones with --weights none, or try --model tiny, which needs no network."
        ) from None


def _is_download(error: BaseException) -> bool:
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(f"{type(current).__module__}.{type(current).__name__}")
        current = current.__cause__ or current.__context__
    return any(part in text for text in chain for part in ("urllib", "httpx", "httpcore", "huggingface_hub", "requests", "socket", "ConnectionError"))


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160].rstrip(".")


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


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def load(name: str, classes: int, *, weights: str | Path = "default", head: str | None = None, head_type: str = "auto") -> tuple[Source, nn.Module]:
    """A frozen copy of a pre-trained network, and the network itself with a fresh classifier.

    Args:
        name: See `build`.
        classes: Width of the fresh classifier, at least 2.
        weights: See `build`.
        head: Name of the classifier; None finds it.
        head_type: See `replace_classifier`.

    Example:
        >>> source, model = rekindle.load("torchvision:resnet50", classes=200)  # doctest: +SKIP
    """
    module = build(name, weights=weights).module
    source = Source(module)
    replace_classifier(module, classes, head=head, head_type=head_type)
    return source, module


def names(pattern: str = "*") -> list[str]:
    """Names of networks that match a shell pattern, ours first."""
    import timm
    import torchvision

    ours = ["tiny", "cifar_resnet20", "cifar_resnet56"]
    theirs = [f"torchvision:{item}" for item in torchvision.models.list_models(module=torchvision.models)]
    return fnmatch.filter([*ours, *theirs, *timm.list_models()], pattern)
