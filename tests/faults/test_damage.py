"""Weights and states that are not what was written are never used in silence, whatever the damage."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn

import rekindle
from rekindle import models
from rekindle.digests import DIGEST, DamagedFile, read_with_digest, write_with_digest
from rekindle.errors import UserError
from rekindle.fitting.choices import from_checkpoint
from rekindle.models.weights import read_weights
from rekindle.records import WEIGHTS
from rekindle.spec import RunSpec
from rekindle.training.checkpoints import Unfit, load_state, save_state, states
from rekindle.training.trainer import STATE, Training
from tests.toys import Notes, picture_folder

STATES: dict[str, Any] = {
    "model": {"weight": torch.arange(24.0).reshape(4, 6), "bias": torch.ones(4)},
    "history": [{"epoch": 0, "loss": 0.5}],
    "best": {},
}


def flips(whole: bytes) -> Iterator[bytes]:
    """Each byte with one of its bits flipped."""
    stream = random.Random(0)
    for place in range(len(whole)):
        yield whole[:place] + bytes([whole[place] ^ 1 << stream.randrange(8)]) + whole[place + 1 :]


def losses(whole: bytes) -> Iterator[bytes]:
    """What a power cut leaves: an end that is missing, a region that is zero, one that holds something else, two that changed places."""
    stream, size = random.Random(1), len(whole)
    yield from (whole[:end] for end in range(0, size, 7))
    yield from (whole + more for more in (b"\0", whole[-8:], bytes(512)))
    for start, end in [
        (0, 8),
        (0, size // 2),
        (size // 2, size),
        (size - 16, size),
        (0, size),
        *zip(range(0, size, 64), range(64, size, 64), strict=False),
    ]:
        yield whole[:start] + bytes(end - start) + whole[end:]
        yield whole[:start] + stream.randbytes(end - start) + whole[end:]
    yield whole[: size // 2 // 8 * 8] + whole[-16:] + whole[size // 2 // 8 * 8 + 16 : -16] + whole[size // 2 // 8 * 8 :][:16]


DAMAGES = pytest.mark.parametrize("damages", [flips, losses])


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) and type(one) is type(other)


def without_digest(path: Path) -> None:
    """Make a file what rekindle 0.1 wrote."""
    content = path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key not in DIGEST}
    path.write_bytes(save(load(content), metadata or None))


@DAMAGES
def test_a_damaged_state_is_passed_over_for_the_one_before(damages: Callable[[bytes], Iterator[bytes]], tmp_path: Path) -> None:
    older = save_state(tmp_path, 1, 0, STATES | {"best": {"epoch": 0}})
    newest = save_state(tmp_path, 2, 0, STATES)
    whole, passed, tried = newest.read_bytes(), 0, 0
    for damaged in damages(whole):
        newest.write_bytes(damaged)
        told: list[tuple[Path, str]] = []
        path, state = next(states(tmp_path, lambda *news, told=told: told.append(news)))  # type: ignore[misc]
        tried += 1
        if path == newest:  # Only the word that announces the digest is not covered by it.
            assert equal(state, STATES)
        else:
            passed += 1
            [(named, why)] = told
            assert named == newest and path == older and why and "\n" not in why
            assert state["best"] == {"epoch": 0}
    assert tried - passed <= len(b'"sha256":"')
    newest.write_bytes(whole)
    assert equal(load_state(newest), STATES)


@DAMAGES
def test_a_damaged_model_is_refused_in_one_sentence(damages: Callable[[bytes], Iterator[bytes]], tmp_path: Path) -> None:
    module = nn.Linear(5, 3)
    models.save_model(tmp_path, module, {})
    path = tmp_path / "model.safetensors"
    whole, refused, tried = path.read_bytes(), 0, 0
    for damaged in damages(whole):
        path.write_bytes(damaged)
        tried += 1
        try:
            assert equal(models.read_model(tmp_path), dict(module.state_dict()))
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{path} is damaged") and str(error).endswith("; train the run again.") and "\n" not in str(error)
    assert tried - refused <= len(b'"sha256":"')


def test_a_flip_anywhere_in_a_network_of_real_size_is_seen(tmp_path: Path) -> None:
    module = models.build("cifar_resnet8", weights="none").module
    models.save_model(tmp_path, module, {})
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for place in [*range(8, len(whole), len(whole) // 50), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(UserError, match="damaged"):
            models.read_model(tmp_path)


def test_the_model_stays_a_plain_safetensors_file(tmp_path: Path) -> None:
    module = models.build("cifar_resnet8", weights="none").module
    models.save_model(tmp_path, module, {})
    path = tmp_path / "model.safetensors"
    assert equal(load_file(path), dict(module.state_dict()))
    assert equal(read_weights(path), dict(module.state_dict()))
    with safe_open(path, "pt") as file:
        assert file.metadata() == WEIGHTS.metadata() | {"sha256": file.metadata()["sha256"]} and file.metadata() != DIGEST


def test_files_without_a_digest_open(tmp_path: Path) -> None:
    module, path = nn.Linear(5, 3), tmp_path / "model.safetensors"
    models.save_model(tmp_path, module, {})
    without_digest(path)
    assert read_with_digest(path) is None
    assert equal(models.read_model(tmp_path), dict(module.state_dict()))
    old = save_state(tmp_path / "checkpoints", 1, 0, STATES)
    without_digest(old)
    assert read_with_digest(old) is None
    assert equal(load_state(old), STATES)


def test_a_tensor_or_a_text_that_looks_like_the_mark_is_none(tmp_path: Path) -> None:
    state = {"sha256": torch.ones(2), "text": '"sha256":"' + "1" * 64 + '"', "deep": {'"sha256":"': [json.dumps(DIGEST)]}}
    assert equal(load_state(save_state(tmp_path, 1, 0, state)), state)
    save_file({"sha256": torch.ones(2)}, tmp_path / "other.safetensors", {"other": '"sha256":"'})
    assert equal(read_weights(tmp_path / "other.safetensors"), {"sha256": torch.ones(2)})


def test_room_for_the_digest_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no room for a digest"):
        write_with_digest(tmp_path / "a.safetensors", save({"a": torch.ones(1)}))
    assert not list(tmp_path.iterdir())


def test_the_digest_is_of_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_with_digest(path, save({"a": torch.ones(1)}, {"note": "one", **DIGEST}))
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    with pytest.raises(DamagedFile):
        read_with_digest(path)


def test_a_state_that_was_passed_over_does_not_push_out_the_good_ones(tmp_path: Path) -> None:
    """Training goes on at epoch 2 beside damaged files of epochs 4 and 5."""
    for epoch in (4, 5):
        save_state(tmp_path, epoch, 0, STATES)
    save_state(tmp_path, 1, 0, STATES)
    save_state(tmp_path, 1, 3, STATES)
    save_state(tmp_path, 2, 0, STATES)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "epoch00001-step0000003.safetensors",
        "epoch00002-step0000000.safetensors",
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Training]]:
    """The folder of a run, and its training."""
    root = tmp_path_factory.mktemp("damage")
    picture_folder(root / "data", {"train": 6, "val": 3})
    made: list[Training] = []
    fit = Training.fit

    def kept(self: Training) -> list[dict[str, Any]]:
        made.append(self)
        return fit(self)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "fit", kept)
        run = rekindle.fit(
            str(root / "data"), model="tiny", image_size=16, method="l2_sp+rifle(periods=2)", epochs=3, batch_size=6, precision="32",
            keep="best", seed=1, record="gradient_norms", out=root / "runs", keep_checkpoints=True,
        )  # fmt: skip
    yield run.folder, made[0]
    torch.set_num_threads(threads)


def test_without_checkpoints_a_refused_model_is_trained_again(finished: tuple[Path, Training], tmp_path: Path) -> None:
    folder = tmp_path / finished[0].name
    shutil.copytree(finished[0], folder, ignore=shutil.ignore_patterns("checkpoints"))
    flipped(folder / "model.safetensors")
    with pytest.raises(UserError, match=f"remove {folder / 'result.json'}, then train it again with rekindle fit --resume {folder}"):
        assert rekindle.Run(folder).model
    (folder / "result.json").unlink()
    rekindle.fit(resume=folder)
    assert (folder / "model.safetensors").read_bytes() == (finished[0] / "model.safetensors").read_bytes()


@pytest.fixture
def stopped(finished: tuple[Path, Training], tmp_path: Path) -> Path:
    """A copy of the run's folder, before its result."""
    folder = tmp_path / finished[0].name
    shutil.copytree(finished[0], folder)
    (folder / "result.json").unlink()
    return folder


def newest_of(folder: Path) -> Path:
    return max((folder / "checkpoints").iterdir())


def wrong_forms(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The state with each of its keys removed, and with values of other kinds in their place."""
    for key, held in state.items():
        yield f"{key} removed", {other: value for other, value in state.items() if other != key}
        for value in (None, "text", 5, [], [1], {}, {"a": 1}, torch.ones(2)):
            if type(value) is not type(held) or value in ([1], {"a": 1}):
                yield f"{key}={value!r}", state | {key: value}


def test_every_key_and_kind_of_a_state_is_checked(finished: tuple[Path, Training]) -> None:
    """Whatever is loaded must be what a training writes; data_seconds and choices may be absent, as in what 0.1 wrote."""
    folder, training = finished
    state = load_state(newest_of(folder))
    spec = RunSpec(data="", epochs=3)
    assert state.keys() == {*STATE, "choices", "data_seconds", "packages"}
    for what, broken in wrong_forms(state):
        if what.startswith(("data_seconds", "packages")):
            continue
        with pytest.raises((Unfit, KeyError, TypeError, ValueError, AttributeError)):
            from_checkpoint(copy.deepcopy(broken), spec, 12)
            training.load(copy.deepcopy(broken))
            pytest.fail(what)
    training.load(state)
    for key in ("model", "optimizer", "scheduler"):
        assert equal(state[key], getattr(training, key).state_dict()), key


def zeroed_half_of_an_old_file(path: Path) -> None:
    without_digest(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + bytes(path.stat().st_size - path.stat().st_size // 2))


def flipped(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1001] + bytes([whole[-1001] ^ 64]) + whole[-1000:])


def changed(key: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A whole file, whose digest fits, of another state."""

    def damage(path: Path) -> None:
        state = load_state(path)
        state[key] = change(state[key])
        save_state(path.parents[1] / "elsewhere", int(path.name[5:10]), 0, state).replace(path)

    damage.__name__ = f"another_{key}"
    return damage


DAMAGED_STATES = [
    flipped, zeroed_half_of_an_old_file, changed("scheduler", lambda value: {}), changed("choices", lambda value: {**value, "epochs": "many"}),
    changed("model", lambda value: {key: tensor[None] for key, tensor in value.items()}),
    changed("ranks", lambda value: [{**value[0], "random": {"cpu": torch.zeros(5056, dtype=torch.uint8)}}]),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED_STATES, ids=lambda damage: damage.__name__)
def test_a_run_goes_on_from_the_checkpoint_before_to_the_same_bits(
    damage: Callable[[Path], None], finished: tuple[Path, Training], stopped: Path
) -> None:
    newest, notes = newest_of(stopped), Notes()
    damage(newest)
    (stopped / "model.safetensors").unlink()
    rekindle.fit(resume=stopped, listener=notes)
    assert (stopped / "model.safetensors").read_bytes() == (finished[0] / "model.safetensors").read_bytes()
    [told] = [note for note in notes.kept if "is damaged" in note]
    assert told.startswith(f"{newest} is damaged (") and told.endswith("; an older checkpoint is tried.") and "\n" not in told
    assert any(note.startswith("continuing after 2 of 3 epochs") for note in notes.kept)


def test_whole_checkpoints_that_do_not_fit_are_kept_and_the_run_refused(stopped: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        changed("tuner", lambda value: {})(path)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no checkpoint of .* fits this run .*it lacks 'methods'.*; resume it with"):
        rekindle.fit(resume=stopped)
    assert {path: path.read_bytes() for path in before} == before


def test_what_a_refused_model_advises_gives_it_back(finished: tuple[Path, Training], tmp_path: Path) -> None:
    folder = tmp_path / finished[0].name
    shutil.copytree(finished[0], folder)
    flipped(folder / "model.safetensors")
    picture = next((finished[0].parents[1] / "data").rglob("*.png"))
    with pytest.raises(UserError) as caught:
        rekindle.Run(folder).predict(picture)
    assert str(caught.value) == (
        f"{folder / 'model.safetensors'} is damaged (its bytes are not those that were written); remove {folder / 'result.json'}, "
        f"then write it again from the checkpoints with rekindle fit --resume {folder}."
    )
    (folder / "result.json").unlink()
    rekindle.fit(resume=folder)
    assert (folder / "model.safetensors").read_bytes() == (finished[0] / "model.safetensors").read_bytes()
    assert not rekindle.Run(folder).predict(picture)[0].error
