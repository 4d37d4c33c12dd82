"""Whatever is typed, written into a study's file or lying in a folder: it is read, or refused in words. The loops take larger counts too."""

from pathlib import Path

from tests.faults.fuzz_text import Tally, fuzz_grids, fuzz_recipes
from tests.faults.fuzz_trees import CHANGES, fuzz_trees


def test_mutated_recipes_are_read_or_refused() -> None:
    tally = fuzz_recipes(400, seed=1)
    assert not tally.faults and min(tally.counts["read"], tally.counts["refused"]) > 10, tally


def test_mutated_grids_are_read_or_refused(tmp_path: Path) -> None:
    tally = fuzz_grids(60, tmp_path, seed=1)
    assert not tally.faults and min(tally.counts["read"], tally.counts["refused"]) > 2, tally


def test_odd_folders_are_opened_or_refused(tmp_path: Path) -> None:
    tally = fuzz_trees(len(CHANGES), tmp_path, seed=1)
    assert not tally.faults and min(tally.counts["read"], tally.counts["refused"]) > 2, tally


def test_the_tally_finds_faults() -> None:
    tally = Tally()
    tally.add("text", lambda: int("x"))
    tally.add("text", lambda: 1 / 0)
    tally.add("text", lambda: 1)
    assert tally.counts == {"ValueError": 1, "ZeroDivisionError": 1, "read": 1} and set(tally.faults) == {"ValueError", "ZeroDivisionError"}
