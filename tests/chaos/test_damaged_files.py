"""A checkpoint or a model that is not what was written is never used in silence, whatever the damage."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import rekindle
from rekindle.errors import UserError
from rekindle.models.saving import load_model
from rekindle.training.checkpoints import states
from tests.chaos.byte_damage import damaged
from tests.chaos.commands import undrawn
from tests.chaos.ledger import Tally, counted
from tests.faults.test_damage import equal
from tests.toys import Notes, picture_folder

pytestmark = pytest.mark.chaos
SEED, FILES, RESUMED = 16, 500, 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run."""
    undrawn()
    data = picture_folder(tmp_path / "data", {"train": 6, "val": 3}, size=24)
    return rekindle.fit(
        str(data),
        model="tiny",
        method="l2_sp",
        image_size=16,
        epochs=3,
        batch_size=6,
        precision="32",
        out=tmp_path / "runs",
        keep_checkpoints=True,
    ).folder


def each(path: Path, count: int, tally: Tally, stream: random.Random, read: Callable[[], str]) -> None:
    """Damage a file many times over. `read` answers what was said, or fails."""
    whole = path.read_bytes()
    for number in range(count):
        kind, content = damaged(whole, stream)
        path.write_bytes(content)
        try:
            tally.add(read())
        except Exception as error:  # noqa: BLE001  Anything but a sentence counts as lost.
            tally.lose(f"{path.name}, damage {number} ({kind}): {type(error).__name__}: {error}")
    path.write_bytes(whole)


def test_checkpoints(folder: Path, count: Callable[[int], int]) -> None:
    older, newest = sorted((folder / "checkpoints").iterdir())
    (_, whole), (_, before) = states(folder / "checkpoints", lambda path, why: None)

    def read() -> str:
        told: list[str] = []
        path, state = next(states(folder / "checkpoints", lambda path, why: told.append(f"{path} is damaged ({why})")))
        # A file whose mark of a digest is damaged reads as one without a digest; then it must hold what was written.
        assert equal(state, whole) if path == newest else path == older and equal(state, before) and told
        return told[0] if told else "the state is what was written"

    with counted("a checkpoint's bytes damaged, and read for resuming", SEED) as tally:
        each(newest, count(FILES), tally, random.Random(SEED), read)


def test_runs_that_go_on_after_damage(folder: Path, count: Callable[[int], int]) -> None:
    model, result, newest = folder / "model.safetensors", folder / "result.json", max((folder / "checkpoints").iterdir())
    trained = model.read_bytes()

    def read() -> str:
        result.unlink(missing_ok=True)
        model.unlink(missing_ok=True)
        notes = Notes()
        rekindle.fit(resume=folder, listener=notes, keep_checkpoints=True)
        assert model.read_bytes() == trained
        return next(note for note in notes.kept if "damaged" in note or "continuing" in note)

    with counted("a checkpoint's bytes damaged, and the run resumed to its end", SEED) as tally:
        each(newest, count(RESUMED), tally, random.Random(SEED + 1), read)


def test_models(folder: Path, count: Callable[[int], int]) -> None:
    def weights() -> dict[str, Any]:
        return dict(load_model(folder)[0].state_dict())

    whole = weights()

    def read() -> str:
        try:
            found = weights()
        except UserError as error:
            assert "\n" not in str(error)
            return str(error)
        assert all(torch.equal(found[key], whole[key]) for key in whole)
        return "the weights are what was written"

    with counted("a model's bytes damaged, and loaded", SEED) as tally:
        each(folder / "model.safetensors", count(FILES), tally, random.Random(SEED + 2), read)
