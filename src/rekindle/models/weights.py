"""Files of weights: read so that nothing in them is run, checked against a network, and put into it.

The keys of a file may stand below a prefix: wrappers (`module.` of DataParallel, `_orig_mod.` of torch.compile), training loops
(`model.`, `state_dict.`) and averages (`ema.`) leave one. It is found by comparing the file's keys with the network's.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from rekindle.digests import DamagedFile, read_metadata, read_with_digest
from rekindle.errors import Unreadable, UserError, first_line, some
from rekindle.files import expand
from rekindle.models.classifier import (
    AUXILIARY,
    HEADLESS,
    USUAL,
    add_classifier,
    find_classifier,
    is_headless,
    set_output_width,
    stated_classifier,
)  # fmt: skip
from rekindle.records import WEIGHTS

IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # What a run folder, or that of a published network, holds.
PICKLED = (b"PK\x03\x04", b"\x80")  # How a file of torch.save begins: a zip archive, or before torch 1.6 a pickle.
PREFERRED = ("ema", "average", "swa", "teacher", "encoder_q")  # Of several copies of the network, the one that is meant to be used.
BESIDE = ("n_averaged", "criterion", "loss", "queue", "projector", "projection", "predictor", "prototypes", *USUAL)
DEEPEST = 8  # Dictionaries inside each other that are looked into.
# Packages whose objects training scripts put beside the weights (options, counts, paths); none of them is made.
PASSED_OVER = (
    "argparse",
    "collections",
    "easydict",
    "lightning",
    "ml_collections",
    "mmengine",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "timm",
    "yacs",
)


class _PassedOver:
    """Stands in a pickled file for an object that is not made."""

    def __new__(cls, *given: object, **named: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *given: object, **named: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a file of weights, widening or narrowing the classifier to the file's.

    Args:
        module: The network, which is changed in place.
        path: A file that `read_weights` takes.

    Raises:
        UserError: If the file is missing, damaged, or its keys or shapes differ.
    """
    fit_weights(module, read_weights(path), path)


def read_weights(path: Path, advice: str = "fetch or write it again") -> dict[str, Tensor]:
    """Tensors of a safetensors file or of one that torch.save wrote, or of the run folder that holds one.

    The kind is told by content, not by ending. Of a pickled file only tensors and plain values are made, so that nothing in it is run. A
    safetensors file is compared with its digest if it has one.

    Args:
        path: The file or folder.
        advice: What to do where it is damaged.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        UserError: If the file is missing, damaged, or of another kind.
    """
    path = _file_of(expand(path))
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(PICKLED) and start[8:] != b"{":  # A safetensors file begins with eight bytes of any value, and then with JSON.
        return _pickled(path)
    try:
        content = read_with_digest(path)
        tensors = load_file(path) if content is None else load(content)
    except DamagedFile as error:
        raise UserError(f"{path} is damaged ({error}); {advice}.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged, or neither a safetensors file nor one of torch.save ({first_line(error)}); {advice}."
        ) from None
    WEIGHTS.check_metadata(path, read_metadata(path))
    return tensors


def read_own_weights(path: Path, advice: str) -> dict[str, Tensor]:
    """As `read_weights`, of a file that rekindle wrote.

    Returns:
        Tensors by name, on the CPU, whose digest was compared.

    Raises:
        Unreadable: If it is missing, damaged or of a later version.
    """
    try:
        return read_weights(path, advice)
    except Unreadable:
        raise
    except UserError as error:
        raise Unreadable(str(error)) from None


def _file_of(path: Path) -> Path:
    """The file itself, or that inside a folder."""
    if path.is_dir():
        found = [path / name for name in IN_FOLDERS if (path / name).is_file()]
        if not found:
            raise UserError(f"the folder {path} holds no {' or '.join(IN_FOLDERS)}; give a finished run, or a file of weights.")
        return found[0]
    if not path.is_file():
        raise UserError(
            f"there is no weights file {path}; give the path of a .safetensors or .pth file or of a run, or 'default' or 'none'."
        )
    return path


def _pickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of torch.save by their dotted path through its dictionaries."""
    try:
        with path.open("rb") as file, torch.serialization.safe_globals([(_PassedOver, name) for name in _passed_over(path)]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds objects beside weights, and making them could run code, so it is not read; "
            "where you trust it, load it with torch and save its weights alone: torch.save(model.state_dict(), FILE)."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged, or no file of weights ({first_line(error)}); fetch or write it again.") from None
    found: dict[str, Tensor] = {}
    _flatten(content, "", found, DEEPEST)
    if not found:
        raise UserError(f"{path} holds no weights by name; write it with torch.save(model.state_dict(), FILE).")
    return found


def _passed_over(path: Path) -> list[str]:
    """Full names in a file of torch.save that lie in `PASSED_OVER`; found by reading the pickle's instructions, not by following them."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (RuntimeError, ValueError, pickle.UnpicklingError):  # Written before torch 1.6, or damaged.
        return []
    return [name for name in names if name.partition(".")[0] in PASSED_OVER]


def _flatten(value: Any, name: str, found: dict[str, Tensor], depth: int) -> None:
    if isinstance(value, Tensor):
        found[name] = value.detach()
    elif isinstance(value, Mapping) and depth:
        for key, item in value.items():
            _flatten(item, f"{name}.{key}".lstrip("."), found, depth - 1)


def misfits(module: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """What keeps `tensors` from being the network's state: keys that lack, are unknown, or differ in shape or kind of number.

    Returns:
        Texts for a sentence; none where all fit.
    """
    state = module.state_dict()
    missing = [key for key in state if key not in tensors and not _counts(key)]
    unknown = [key for key in tensors if key not in state]
    both = [(key, tensors[key], wanted) for key, wanted in state.items() if key in tensors]
    shapes = [f"{key} is {tuple(found.shape)}, wanted {tuple(wanted.shape)}" for key, found, wanted in both if found.shape != wanted.shape]
    kinds = [f"{key} is {found.dtype}, wanted {wanted.dtype}" for key, found, wanted in both if _kind(found) != _kind(wanted)]
    faults = [f"it lacks {some(missing, 3)}"] if missing else []
    faults += [f"it has {some(unknown, 3)}, unknown to the network"] if unknown else []
    return faults + [some(items, 3) for items in (shapes, kinds) if items]


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.dtype.is_floating_point, tensor.dtype.is_complex


def fit_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> str:
    """Put a file's tensors into a network; a file without a classifier leaves that of the network as it is drawn.

    Args:
        module: Its classifier takes the width of the file's.
        tensors: What `read_weights` gave.
        path: The file, for messages.

    Returns:
        What was done beside loading, in words such as "without a classifier"; "" where there is nothing to say.

    Raises:
        UserError: If keys or shapes differ.
    """
    if getattr(module, "aux_logits", None) is False:  # The side classifiers of GoogLeNet and Inception stand in torchvision's files.
        tensors = {key: value for key, value in tensors.items() if not any(f".{part}." in f".{key}" for part in AUXILIARY)}
    layers = [] if is_headless(module) else find_classifier(module)
    head = tuple(f"{part}." for part in [*layers, *(name.partition(".")[0] for name in layers if name.partition(".")[0] in USUAL)])
    prefix = _prefix(module, tensors, head)
    tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    _match_classifier(module, tensors)
    state = module.state_dict()
    bare = bool(layers) and not any(key in state and key.startswith(tuple(f"{layer}." for layer in layers)) for key in tensors)
    if bare:  # A backbone, as self-supervised training leaves it.
        tensors = {**{key: value for key, value in state.items() if key.startswith(head)}, **tensors}
        setattr(module, HEADLESS, True)
    tensors = _without_side_parts(module, tensors)
    faults = misfits(module, tensors)
    if faults:
        raise UserError(f"{path} does not fit the network: {'; '.join(faults)}. Give the --model that the file was made with.")
    module.load_state_dict(tensors, strict=False)
    return ", ".join(([f"below {prefix.rstrip('.')}"] if prefix else []) + (["without a classifier"] if bare else []))


def _prefix(module: nn.Module, tensors: dict[str, Tensor], head: tuple[str, ...]) -> str:
    """What stands before the network's keys in the file, with its dot; "" where nothing does, or where nothing fits."""
    shapes = {key: value.shape for key, value in module.state_dict().items() if not key.startswith(head) and not _counts(key)}
    first = next(iter(shapes), "")
    candidates = [key.removesuffix(first) for key in tensors if f".{key}".endswith(f".{first}")]
    fitting = [each for each in candidates if all(_shape(tensors, each + key) == shape for key, shape in shapes.items())]
    return min(fitting, key=_preference) if fitting and "" not in fitting else ""


def _preference(prefix: str) -> int:
    return next((place for place, word in enumerate(PREFERRED) if word in prefix.lower()), len(PREFERRED))


def _shape(tensors: dict[str, Tensor], key: str) -> torch.Size | None:
    return tensors[key].shape if key in tensors else None


def _counts(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _without_side_parts(module: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what training had beside the network: a loss, a projection, a classifier of another name or kind."""
    state = module.state_dict()
    own = {key.partition(".")[0] for key in state}
    aside = set(BESIDE) if getattr(module, HEADLESS, False) else set(BESIDE) - own
    return {key: value for key, value in tensors.items() if key in state or key.partition(".")[0] not in aside}


def _match_classifier(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give the classifier the width of the file's: a file that somebody trained on ten classes has a classifier for ten."""
    stated = [tensors[f"{part}.weight"] for part in stated_classifier(module) if f"{part}.weight" in tensors]
    if not is_headless(module):
        state = module.state_dict()
        for head in find_classifier(module):
            key = f"{head}.weight"
            found = tensors.get(key)
            if found is not None and found.shape[:1] != state[key].shape[:1] and found.shape[1:] == state[key].shape[1:]:
                set_output_width(module, head, found.shape[0])
    elif stated:
        add_classifier(module, stated[0].shape[0])
