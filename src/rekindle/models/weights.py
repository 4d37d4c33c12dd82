"""Files of weights: read without unpickling, checked against a network, and put into it."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from rekindle.errors import UserError, some
from rekindle.files import DamagedFile, read_with_digest
from rekindle.models.classifier import AUXILIARY, add_classifier, find_classifier, is_headless, set_output_width, stated_classifier
from rekindle.models.hub import first_line


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file, widening or narrowing the classifier to the file's.

    Raises:
        UserError: If the file is missing, damaged, pickled, or its keys or shapes differ.
    """
    fit_weights(module, read_weights(path), path)


def read_weights(path: Path, advice: str = "fetch or write it again") -> dict[str, Tensor]:
    """Tensors of a safetensors file, compared with its digest if it has one; nothing else is read, since unpickling can run code.

    Args:
        path: The file.
        advice: What to do where it is damaged.

    Raises:
        UserError: If the file is missing, damaged, or of another kind.
    """
    if not path.is_file():
        raise UserError(f"there is no weights file {path}; give the path of a .safetensors file, or 'default' or 'none'.")
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is no .safetensors file, and pickled ones can run code; convert it with safetensors.torch.save_file.")
    try:
        content = read_with_digest(path)
        return load_file(path) if content is None else load(content)
    except DamagedFile as error:
        raise UserError(f"{path} is damaged ({error}); {advice}.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({first_line(error)}); {advice}.") from None


def misfits(module: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """What keeps `tensors` from being the network's state: keys that lack, are unknown, or differ in shape or kind of number."""
    state = module.state_dict()
    missing = [key for key in state if key not in tensors and not key.endswith("num_batches_tracked")]
    unknown = [key for key in tensors if key not in state]
    both = [(key, tensors[key], wanted) for key, wanted in state.items() if key in tensors]
    shapes = [f"{key} is {tuple(found.shape)}, wanted {tuple(wanted.shape)}" for key, found, wanted in both if found.shape != wanted.shape]
    kinds = [f"{key} is {found.dtype}, wanted {wanted.dtype}" for key, found, wanted in both if _kind(found) != _kind(wanted)]
    faults = [f"it lacks {some(missing, 3)}"] if missing else []
    faults += [f"it has {some(unknown, 3)}, unknown to the network"] if unknown else []
    return faults + [some(items, 3) for items in (shapes, kinds) if items]


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.dtype.is_floating_point, tensor.dtype.is_complex


def fit_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    if getattr(module, "aux_logits", None) is False:  # The side classifiers of GoogLeNet and Inception stand in torchvision's files.
        tensors = {key: value for key, value in tensors.items() if not key.startswith(tuple(f"{part}." for part in AUXILIARY))}
    _match_classifier(module, tensors)
    faults = misfits(module, tensors)
    if faults:
        raise UserError(f"{path} does not fit the network: {'; '.join(faults)}. Give the --model that the file was made with.")
    module.load_state_dict(tensors, strict=False)


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
