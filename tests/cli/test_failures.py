"""What a command says when it fails: one sentence for whatever was raised, and with --debug also where."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rekindle import cli
from rekindle.cli import fit, main, parser
from rekindle.errors import Busy, Diverged, UserError
from tests.toys import picture_folder


def commands(top: argparse.ArgumentParser, typed: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command and every action of one, with what to type for it."""
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield (*typed, name), below
                yield from commands(below, (*typed, name))


COMMANDS = dict(commands(parser()))


@pytest.mark.parametrize("typed", COMMANDS, ids=" ".join)
def test_every_command_takes_debug(typed: tuple[str, ...]) -> None:
    assert "--debug" in COMMANDS[typed].format_help()


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(options: argparse.Namespace) -> int:
        try:
            raise LookupError("the first cause")
        except LookupError:
            raise error from None

    monkeypatch.setattr(fit, "_fit", act)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("no such thing."), 2, "no such thing."),
        (Diverged("it diverged."), 2, "it diverged."),
        (Busy("another command works there."), 1, "another command works there."),
        (OSError(28, "No space left on device", "runs"), 1, "No space left on device: 'runs'"),
        (KeyboardInterrupt(), 130, "stopped."),
        (MemoryError(), 1, "--batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 1, "--batch-size"),
        (KeyError("stage"), 1, "KeyError: 'stage'"),
        (RecursionError("maximum recursion depth exceeded"), 1, "RecursionError"),
        (AssertionError(), 1, "AssertionError"),
        (ZeroDivisionError("a\nb " * 1000), 1, "ZeroDivisionError"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("before", [True, False])
def test_whatever_is_raised_is_one_sentence(
    error: BaseException, status: int, said: str, before: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(error, monkeypatch)
    assert main(["fit", "photos"]) == status
    told = capsys.readouterr().err.strip()
    assert told.startswith("rekindle: ") and said in told and told.count("\n") == 0 and len(told) < 500
    assert ("--debug" in told) == (not isinstance(error, UserError | OSError | MemoryError | KeyboardInterrupt) and "memory" not in told)
    assert main(["--debug", "fit", "photos"] if before else ["fit", "photos", "--debug"]) == status
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "the first cause" in shown and shown.strip().endswith(told.splitlines()[-1])


def test_a_closed_pipe_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(BrokenPipeError(), monkeypatch)
    monkeypatch.setattr(cli, "drop_output", lambda *streams: None)
    assert main(["fit", "photos", "--debug"]) == cli.PIPE_CLOSED


@pytest.mark.parametrize("place", ["rekindle.fitting.job.look_at", "rekindle.training.trainer.Training._step"])
def test_memory_that_runs_out_is_not_taken_for_a_wrong_size(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(place, full)
    options = ["--epochs", "1", "--image-size", "32", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    assert (
        main(
            ["fit", str(picture_folder(tmp_path / "photos", {"train": 6, "val": 2, "test": 2})), "--out", str(tmp_path / "runs"), *options]
        )
        == 1
    )
    said = capsys.readouterr().err
    assert "memory ran out (CUDA out of memory" in said and "--batch-size" in said and "--image-size 32" not in said
