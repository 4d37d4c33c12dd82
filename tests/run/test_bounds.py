"""Every number that a user can set has bounds: whatever is given, there is a plan or one sentence, at once and in little memory."""

import math
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.analysis.ranking import rank
from rekindle.cli import main
from rekindle.cli.fit import plain_types
from rekindle.data.augment import KINDS
from rekindle.errors import UserError, shown
from rekindle.oracle.settings import OracleSettings
from rekindle.registry import directions, methods
from rekindle.spec import RunSpec, hints, is_multiple

ODD: tuple[Any, ...] = (
    0, -1, 1, 1e-300, -1e-300, 1e300, -1e300, 5e-324, math.nan, math.inf, -math.inf, 2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 10**5000, 0.5, True, None, "x",
)  # fmt: skip
TEXTS = (
    "0",
    "-1",
    "1e-300",
    "1e300",
    "nan",
    "inf",
    "-inf",
    str(2**31),
    str(2**63),
    "1" + "0" * 30,
    "1" * 5000,
    "",
    "½",
    "0x10",
    "1_0",
    "x1e9",
    "x" + "9" * 5000,
)


def numeric(kind: type) -> list[str]:
    return [name for name, hint in hints(kind).items() if {int, float} & set(plain_types(hint)) - {bool}]


def plans_or_tells(act: Callable[[], Any], most_seconds: float = 1.0) -> Any:
    """What is made, or None where that is refused in one short sentence; never slowly or with much memory."""
    began = time.process_time()
    tracemalloc.start()
    try:
        return act()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, error
        return None
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 2**24 and time.process_time() - began < most_seconds


@pytest.mark.parametrize("name", numeric(RunSpec))
def test_every_number_of_a_run(name: str) -> None:
    made = [spec for value in ODD if (spec := plans_or_tells(lambda value=value: RunSpec("x", **{name: value}))) is not None]  # type: ignore[misc]
    for spec in made:
        assert RunSpec.from_dict(spec.to_dict()) == spec and len(spec.run_id("d", "w")) == 12
        value = getattr(spec, name)
        assert (
            value is None
            or isinstance(value, str)
            or (math.isfinite(value) and abs(value) < 1e39 and spec.seed * 1009 + spec.devices < 2**64)
        )


@pytest.mark.parametrize(
    "kind", [OracleSettings, *methods().values(), *directions().values(), *KINDS.values()], ids=lambda kind: kind.__name__
)
def test_every_number_of_an_experiment_a_method_or_an_augmentation(kind: type) -> None:
    for name in numeric(kind):
        for value in ODD:
            try:
                plans_or_tells(lambda name=name, value=value: kind(**{name: value}))  # type: ignore[misc]
            except ValueError as error:  # What a constructor of a method raises, and `parse` turns into a UserError.
                assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize("name", ["image_size", "per_class", "seed"])
def test_every_number_of_a_ranking(name: str) -> None:
    for value in (-1, 2**31, 2**63, 10**30):
        plans_or_tells(lambda value=value: rank("nowhere", ["tiny"], **{name: value}), 5.0)  # type: ignore[misc]


COMMANDS: list[list[str]] = [
    *(["fit", "nowhere", f"--{name.replace('_', '-')}"] for name in numeric(RunSpec)), ["fit", "nowhere", "--workers"],
    ["predict", "nowhere", "nothing", "--top-k"], ["study", "run", "nowhere.yaml", "--jobs"], ["study", "run", "nowhere.yaml", "--threads"],
    ["study", "run", "nowhere.yaml", "--cpus-per-run"], ["study", "run", "nowhere.yaml", "--gpus-per-run"],
]  # fmt: skip


@pytest.mark.parametrize("typed", COMMANDS, ids=" ".join)
def test_every_number_that_is_typed(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in TEXTS:
        try:
            status = main([*typed[:-1], f"{typed[-1]}={text}"])
        except SystemExit as ended:  # argparse's own.
            status = int(str(ended.code))
        told = capsys.readouterr().err
        assert status == 2 and "Traceback" not in told and "not foreseen" not in told, (text, told)


@given(st.text("x0123456789.e+-tied", max_size=12) | st.integers(0, 10**400).map(lambda number: f"x{number}"))
@settings(max_examples=200, deadline=None)
def test_a_multiple_is_a_number_that_can_be_multiplied(text: str) -> None:
    if is_multiple(text) and text != "tied":
        assert 0 < float(text[1:]) * 1e38 < math.inf


def test_a_long_multiple_is_read_in_one_pass() -> None:
    began = time.process_time()
    assert not is_multiple("x" + "9" * 200_000 + "z") and time.process_time() - began < 1


NESTED: list[Any] = []
for _ in range(100):
    NESTED = [NESTED, NESTED]


@pytest.mark.parametrize(
    "value", [10**5000, "x" * 10**6, NESTED, ["\ud800"] * 10**5, {1: NESTED}, RunSpec], ids=lambda value: type(value).__name__
)
def test_a_sentence_does_not_grow_with_what_it_shows(value: Any) -> None:
    assert len(shown(value)) < 1000
