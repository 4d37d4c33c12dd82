"""Training state in safetensors files: nothing is pickled, nothing is half written, and a damaged file is passed over.

A state is any nesting of dicts, lists and plain values around tensors. Tensors go into the file's body, the nesting as
JSON into its header, and a digest of it all. Each file is written beside its place, flushed, and moved there; the two newest are kept.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rekindle.digests import DIGEST, DamagedFile, read_metadata, read_with_digest, write_with_digest
from rekindle.errors import Later, Unreadable, UserError, first_line
from rekindle.records import CHECKPOINT
from rekindle.stored import SURPRISES

KEPT = 2
UNFIT = (DamagedFile, SafetensorError, OSError, StopIteration, *SURPRISES)


class Unfit(Exception):
    """A state that a run cannot go on from; the message is the reason alone."""


def save_state(folder: Path, epoch: int, step: int, state: dict[str, Any]) -> Path:
    """Write the state reached after `step` steps of `epoch` and remove all but this and the one before it.

    What bears a later name was passed over when the run went on; left there, it would push out the good ones.

    Returns:
        The file that was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_pack(state, tensors))
    path = folder / f"epoch{epoch:05d}-step{step:07d}.safetensors"
    write_with_digest(path, save(tensors, {"structure": structure, **CHECKPOINT.metadata(), **DIGEST}))
    files = _files(folder)
    kept = [file for file in files if file <= path][:KEPT]
    for file in files:
        if file not in kept:
            file.unlink(missing_ok=True)
    return path


def states(folder: Path, on_damage: Callable[[Path, str], None]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read the whole states, newest first, each when it is asked for.

    Args:
        folder: Where `save_state` wrote.
        on_damage: Told of each file that cannot be read, and why, before an older one is tried.

    Yields:
        Each file and its state.
    """
    for path in _files(folder):
        try:
            state = load_state(path)
        except Unfit as error:
            on_damage(path, str(error))
        else:
            yield path, state


def remove_states(folder: Path) -> None:
    """Remove what `save_state` wrote, and the folder where it is empty then."""
    for path in _files(folder):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def load_state(path: Path) -> dict[str, Any]:
    """Read one file that `save_state` wrote.

    Returns:
        The state as it was saved, tensors on the CPU.

    Raises:
        Unfit: If it cannot be read, or is not what was written.
        Later: If a later version wrote it.
    """
    with unfit():
        content = read_with_digest(path) or path.read_bytes()
        _check_version(path)
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        state: dict[str, Any] = _unpack(json.loads(header["__metadata__"]["structure"]), tensors)
        if not isinstance(state, dict):
            raise TypeError("it holds no state")
    return state


def _check_version(path: Path) -> None:
    try:
        CHECKPOINT.check_metadata(path, read_metadata(path))
    except Later:
        raise
    except Unreadable:
        raise Unfit("its format is none that there is") from None


@contextmanager
def unfit() -> Iterator[None]:
    """Turn whatever a damaged or foreign state brings about, when it is read or loaded, into `Unfit`.

    Yields:
        Nothing.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):  # These have other reasons.
        raise
    except KeyError as error:
        raise Unfit(f"it lacks {error}") from None
    except UNFIT as error:
        raise Unfit(first_line(error)) from None


def newest_finite(folder: Path, names: Sequence[str]) -> Path | None:
    """The newest whole checkpoint that `is_finite`, or None where there is none.

    Returns:
        A path, or None.
    """
    for path in _files(folder):
        try:
            if is_finite(load_state(path)["model"], names):
                return path
        except Unfit:
            continue
    return None


def is_finite(weights: dict[str, Tensor], names: Sequence[str]) -> bool:
    """Whether the tensors of these names hold neither NaN nor inf; looked at together, since asking a GPU takes time.

    Returns:
        True where all are finite.
    """
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
