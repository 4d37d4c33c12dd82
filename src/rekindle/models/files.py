"""A trained network as two files: weights in safetensors, and all that is needed to build it again in JSON."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from rekindle.checkpoints import write_atomic, write_json
from rekindle.errors import UserError
from rekindle.models.build import build, read_weights
from rekindle.models.classifier import replace_classifier

FORMAT = 1
NEEDED = ("model", "head", "head_type", "classes", "image_size", "mean", "std", "interpolation")


def save_model(folder: Path, module: nn.Module, recipe: dict[str, Any]) -> None:
    """Write model.safetensors and model.json, each whole or not at all.

    Args:
        folder: Where to.
        module: The network, its head in place.
        recipe: Must hold `NEEDED`.
    """
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    write_atomic(folder / "model.safetensors", save(tensors))
    write_json(folder / "model.json", {"format": FORMAT, **recipe})


def load_model(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a run folder again, in evaluation mode, and return it with its recipe.

    Raises:
        UserError: If a file is missing, damaged, or of a later version.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no trained network (no model.json); finish the run with rekindle fit --resume {folder}.")
    try:
        recipe = json.loads(path.read_text("utf-8"))
        missing = [key for key in NEEDED if key not in recipe]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); train the run again.") from None
    if recipe.get("format", 0) > FORMAT:
        raise UserError(f"{path} was written by a later rekindle (format {recipe['format']}, this one reads {FORMAT}); upgrade rekindle.")
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; train the run again.")
    with torch.random.fork_rng(devices=[]):
        module = build(recipe["model"], weights="none").module
        replace_classifier(module, len(recipe["classes"]), head=recipe["head"] or None, head_type=recipe["head_type"])
    try:
        module.load_state_dict(read_weights(folder / "model.safetensors"))
    except RuntimeError as error:
        raise UserError(f"{folder / 'model.safetensors'} does not fit {path.name}: {str(error).splitlines()[-1].strip()}") from None
    return module.eval(), recipe
