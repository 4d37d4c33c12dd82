"""A trained network as two files: weights in safetensors, and all that is needed to build it again in JSON."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from rekindle.digests import DIGEST, write_with_digest
from rekindle.errors import UserError
from rekindle.models.build import build
from rekindle.models.classifier import find_classifier, replace_classifier, set_output_width
from rekindle.models.merging import merge_
from rekindle.models.weights import misfits, read_own_weights
from rekindle.records import MODEL, WEIGHTS, read_recipe

Operation = Callable[[nn.Module, nn.Module, list[str], dict[str, Any]], None]


def save_model(folder: Path, module: nn.Module, recipe: dict[str, Any]) -> None:
    """Write model.safetensors, its digest among its metadata, and model.json, each whole or not at all.

    Args:
        folder: Where to; made if absent.
        module: The network, its head in place. Tied tensors are written under each of their names.
        recipe: A `Recipe`; whatever else it holds is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    write_with_digest(folder / "model.safetensors", save(tensors, {**WEIGHTS.metadata(), **DIGEST}))
    MODEL.write(folder / "model.json", recipe)


def load_model(folder: Path, operate: Operation | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a run folder again, in evaluation mode, and return it with its recipe.

    Args:
        folder: A run folder.
        operate: Called with (network with its new head, the network before, names of the head's layers, recipe), for methods
            that changed the network's modules.

    Returns:
        (network, recipe): the network on the CPU, the recipe as model.json holds it.

    Raises:
        UserError: If a file is missing, damaged, or of a later version.
    """
    recipe: dict[str, Any] = {**read_recipe(folder)}
    path = folder / "model.safetensors"
    tensors = read_model(folder)
    with torch.random.fork_rng(devices=[]):
        module = build(recipe["model"], weights="none", image_size=recipe["image_size"]).module
        before = copy.deepcopy(module) if operate else module
        if operate and recipe.get("source_classes"):
            for name in find_classifier(before):
                set_output_width(before, name, recipe["source_classes"])
        head = replace_classifier(module, len(recipe["classes"]), head=recipe["head"] or None, head_type=_head_type(recipe))
        if operate:
            operate(module, before, head, recipe)
        if recipe.get("merged"):
            merge_(module)
    faults = misfits(module, tensors)
    if faults:
        raise UserError(f"{path} does not fit the {recipe['model']} of model.json beside it: {'; '.join(faults)}; train the run again.")
    module.load_state_dict(tensors, strict=False)
    merge_(module)
    return module.eval(), recipe


def read_model(folder: Path) -> dict[str, Tensor]:
    """The weights of a run folder.

    Returns:
        Tensors by parameter and buffer, on the CPU.

    Raises:
        UserError: If the file is missing or damaged; it says how to have it again.
    """
    again = "train the run again"
    if (folder / "result.json").is_file():
        how = "write it again from the checkpoints" if any((folder / "checkpoints").glob("*.safetensors")) else "train it again"
        again = f"remove {folder / 'result.json'}, then {how} with rekindle fit --resume {folder}"
    return read_own_weights(folder / "model.safetensors", again)


def _head_type(recipe: dict[str, Any]) -> str:
    """ "own" or "linear": rekindle 0.1.0 wrote "auto" for the network's own."""
    return "own" if recipe["head_type"] == "auto" else str(recipe["head_type"])
