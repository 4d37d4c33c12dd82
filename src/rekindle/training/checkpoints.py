"""Training state in safetensors files: nothing is pickled, nothing is half written, and a damaged file is passed over.

A state is any nesting of dicts, lists and plain values around tensors. Tensors go into the file's body, the nesting as
JSON into its header. Each file is written beside its place, flushed, and moved there; the two newest are kept.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rekindle.files import write_atomic

KEPT = 2
DAMAGE = (SafetensorError, OSError, ValueError, KeyError)


def save_state(folder: Path, epoch: int, step: int, state: dict[str, Any]) -> Path:
    """Write the state reached after `step` steps of `epoch` and remove all but the newest files."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_pack(state, tensors))
    path = folder / f"epoch{epoch:05d}-step{step:07d}.safetensors"
    write_atomic(path, save(tensors, {"structure": structure}))
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def load_newest(folder: Path, on_damage: Callable[[Path, str], None]) -> dict[str, Any] | None:
    """Read the newest whole state, or None where there is none.

    Args:
        folder: Where `save_state` wrote.
        on_damage: Told of each file that cannot be read, and why, before an older one is tried.
    """
    for path in _files(folder):
        try:
            return load_state(path)
        except DAMAGE as error:
            on_damage(path, str(error))
    return None


def load_state(path: Path) -> dict[str, Any]:
    """Read one file that `save_state` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        structure = json.loads(file.metadata()["structure"])
    state: dict[str, Any] = _unpack(structure, tensors)
    return state


def newest_finite(folder: Path, names: Sequence[str]) -> Path | None:
    """The newest whole checkpoint that `is_finite`, or None where there is none."""
    for path in _files(folder):
        try:
            if is_finite(load_state(path)["model"], names):
                return path
        except DAMAGE:
            continue
    return None


def is_finite(weights: dict[str, Tensor], names: Sequence[str]) -> bool:
    """Whether the tensors of these names hold neither NaN nor inf; looked at together, since asking a GPU takes time."""
    return not names or bool(torch.stack([weights[name].isfinite().all() for name in names]).all())


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch*-step*.safetensors"), reverse=True)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Replace tensors by their keys; a dict becomes a list of pairs, since JSON would turn its keys into text."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_pack(item, tensors) for item in value]}
    return {"value": value}


def _unpack(packed: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    kind, content = next(iter(packed.items()))
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in content}
    if kind == "list":
        return [_unpack(item, tensors) for item in content]
    return content


def random_state() -> dict[str, Tensor]:
    """State of torch's default generators, which a network's own dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
