"""Recipes, grids, folders, run folders and study folders that are mutated are read, or refused in a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.ledger import Tally, counted
from tests.faults import mutations as damage
from tests.faults.fuzz_text import fuzz_grids, fuzz_recipes
from tests.faults.fuzz_trees import fuzz_trees
from tests.faults.test_damaged_records import RUN_READERS, STUDY_FOLDER, STUDY_READERS, complete_run

pytestmark = pytest.mark.chaos
SEED, PARTS = 19, 4  # In parts, so that both processes have some to do.
RECIPES, GRIDS, TREES, RUNS, STUDIES = 24000, 6000, 500, 3000, 6000
BLOCK = 100  # Mutations of records after which one begins anew.


def note(fault: str, found: Any) -> None:
    """Take over what a loop counted."""
    with counted(fault, SEED) as tally:
        for outcome, times in found.counts.items():
            if outcome in found.faults:
                tally.lose(f"{times} {outcome}, such as {found.faults[outcome]}", times=times)
            else:
                tally.add({"read": "nothing: it is still sound", "refused": "one sentence on what is wrong"}[outcome], times=times)


@pytest.mark.parametrize("part", range(PARTS))
def test_recipes(part: int, count: Callable[[int], int]) -> None:
    note("a recipe, direction or augmentation mutated", fuzz_recipes(count(RECIPES // PARTS), seed=SEED + part))


@pytest.mark.parametrize("part", range(PARTS))
def test_grids(part: int, tmp_path: Path, count: Callable[[int], int]) -> None:
    note("a study's grid mutated", fuzz_grids(count(GRIDS // PARTS), tmp_path, seed=SEED + part))


def test_folders(tmp_path: Path, count: Callable[[int], int]) -> None:
    note("a folder of pictures with odd files in it, for `fit` and `data check`", fuzz_trees(count(TREES), tmp_path, seed=SEED))


def read_damaged(whole: Path, place: Path, readers: list[Any], mutations: int, seed: int, tally: Tally) -> None:
    """Damage a folder's files by blocks, each of a seed of its own."""
    for block in range(-(-mutations // BLOCK)):
        times = min(BLOCK, mutations - block * BLOCK)
        try:
            outcomes = damage.count(whole, place, readers, times, seed + block)
        except AssertionError as error:
            tally.lose(str(error), times=times)
            continue
        tally.add("nothing: it is still sound", times=outcomes["worked"])
        tally.add("one sentence on what is wrong", times=outcomes["refused"])


@pytest.mark.parametrize("part", range(PARTS))
def test_run_folders(part: int, tmp_path: Path, count: Callable[[int], int]) -> None:
    whole = complete_run(tmp_path / "whole" / "run")
    with counted("a file of a run folder mutated, missing or exchanged, and read by a command", SEED) as tally:
        read_damaged(whole, tmp_path / "run", RUN_READERS, count(RUNS // PARTS), SEED + 1000 * part, tally)


@pytest.mark.parametrize("part", range(PARTS))
def test_study_folders(part: int, tmp_path: Path, count: Callable[[int], int]) -> None:
    with counted("a file of a study's folder mutated, missing or exchanged, and read by a command", SEED) as tally:
        read_damaged(STUDY_FOLDER, tmp_path / "study", STUDY_READERS, count(STUDIES // PARTS), SEED + 1000 * part, tally)
