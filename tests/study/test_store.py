"""Records, leases and selection: what is done stays done, and nothing else counts as done."""

import copy
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rekindle.errors import UserError
from rekindle.study import store
from rekindle.study.grid import Cell
from rekindle.study.grid_file import from_dict
from rekindle.study.plan import plan
from rekindle.study.status import read_status
from rekindle.study.store import Study
from rekindle.study.worker import run_cell
from tests.study import fakes


def make(tmp_path: Path, **changes: object) -> Study:
    return Study.create(tmp_path / "study", from_dict({**copy.deepcopy(fakes.GRID), **changes}))


def hold(folder: Path, key: str) -> None:
    study = Study.open(folder)
    with study.lease(key) as mine:
        assert mine
        study.update(key, state="running", pid=os.getpid())
        time.sleep(60)


def test_first_seeds_come_first(tmp_path: Path) -> None:
    cells = make(tmp_path).cells()
    assert [cell.spec.seed for cell in cells] == [0] * 24 + [1] * 24 + [2] * 24


def test_blocks_come_one_after_the_other(tmp_path: Path) -> None:
    searched = {"method": "{regularizer}+dropout(p={p})", "grid": {"p": [0.1, 0.2]}}
    study = make(
        tmp_path,
        methods={"Original": "{regularizer}", "Dropout": searched},
        selection={"seeds": 1, "equal_budgets": False, "test_selected": True},
        blocks=[{"sizes": [30], "tasks": ["dogs"], "seeds": [0, 7]}, {"sizes": [30], "seeds": [7, 1], "regularizers": ["L2"]}],
    )
    cells = [(cell.stage, cell.setting.task, cell.spec.seed) for cell in study.cells()]
    first = [("select", "dogs", 1000)] * 4 + [("final", "dogs", 0)] * 6 + [("final", "dogs", 7)] * 6
    second = [("select", "cats", 1000)] * 2 + [("final", "cats", 7)] * 3 + [("final", "cats", 1)] * 3 + [("final", "dogs", 1)] * 3
    assert cells == first + second


def test_a_result_is_read_again_only_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path)
    cell = study.cells()[0]
    run_cell(study, cell, fakes.answer)
    whole = (study.run_folder(cell) / "result.json").read_text()
    monkeypatch.setattr(store, "read_result", lambda folder: pytest.fail("it did not change"))
    assert Study.open(study.folder).state(cell) == "done"
    monkeypatch.undo()
    for text, state in (("{}", "waiting"), (whole + "\n", "done")):
        (study.run_folder(cell) / "result.json").write_text(text)
        assert study.state(cell) == Study.open(study.folder).state(cell) == state


def test_done_is_done_for_later_commands_and_reopened_folders(tmp_path: Path) -> None:
    study = make(tmp_path)
    cell = study.cells()[0]
    assert run_cell(study, cell, fakes.answer) and not run_cell(study, cell, fakes.answer)
    again = Study.open(study.folder)
    assert again.settled(cell) and again.result(cell)["test"]["accuracy"] == fakes.accuracy(cell)
    assert again.grid == study.grid and read_status(again).counts == {"done": 1, "failed": 0, "running": 0, "stopped": 0, "waiting": 71}


def test_a_changed_setting_never_reuses_a_result(tmp_path: Path) -> None:
    study = make(tmp_path)
    for cell in study.cells()[:3]:
        run_cell(study, cell, fakes.answer)
    changed = make(tmp_path, base={"model": "tiny", "epochs": 4})
    assert read_status(changed).counts["done"] == 0
    assert read_status(make(tmp_path)).counts["done"] == 3


def test_an_option_that_is_new_at_its_default_keeps_results_and_another_value_does_not(tmp_path: Path) -> None:
    study = make(tmp_path)
    cell = study.cells()[0]
    run_cell(study, cell, fakes.answer)
    spec = study.record(cell.key)["spec"]
    study.update(cell.key, spec={name: value for name, value in spec.items() if name != "keep"})
    assert study.state(cell) == "done"
    study.update(cell.key, spec={**spec, "keep": "best"})
    assert study.state(cell) == "waiting"


def test_changed_data_or_a_lost_run_folder_is_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").write_bytes(b"1")
    study = make(tmp_path, tasks={"cats": str(tmp_path / "cats")})
    first, second = study.cells()[:2]
    run_cell(study, first, fakes.answer)
    run_cell(study, second, fakes.answer)
    (tmp_path / "cats" / "a.png").write_bytes(b"22")
    (study.run_folder(second) / "result.json").unlink()
    again = Study.open(study.folder)
    assert again.state(first) == "done" and not again.settled(first)
    assert again.state(second) == "waiting"
    assert run_cell(again, first, fakes.answer) and again.settled(first)


def test_a_dead_owners_lease_is_taken_over_and_a_living_ones_is_not(tmp_path: Path) -> None:
    study = make(tmp_path)
    cell = study.cells()[0]
    owner = multiprocessing.get_context("spawn").Process(target=hold, args=(study.folder, cell.key))
    owner.start()
    try:
        while study.record(cell.key).get("state") != "running":
            assert owner.is_alive()
            time.sleep(0.02)
        assert study.state(cell) == "running" and not run_cell(study, cell, fakes.answer)
    finally:
        os.kill(owner.pid or 0, signal.SIGKILL)
        owner.join()
    assert study.state(cell) == "stopped"
    assert run_cell(study, cell, fakes.answer) and study.state(cell) == "done"


def test_a_failure_is_kept_with_its_message_until_it_is_forgiven(tmp_path: Path) -> None:
    study = make(tmp_path)
    cell = next(cell for cell in study.cells() if cell.method == "Dropout")
    assert run_cell(study, cell, fakes.half_broken) and not run_cell(study, cell, fakes.answer)
    assert study.record(cell.key)["error"] == "ValueError: the mask <b>is</b> broken" and "Traceback" in study.log(cell).read_text("utf-8")
    assert study.reset_failed() == 1 and run_cell(study, cell, fakes.answer) and study.state(cell) == "done"


def test_selection_reads_validation_and_final_runs_follow_it(tmp_path: Path) -> None:
    recipes = {"Original": "{regularizer}", "Other": "{regularizer}+rifle(periods=2)"}
    methods = {name: {"method": recipe, "grid": {"lr": [0.1, 0.2]}} for name, recipe in recipes.items()}
    study = make(tmp_path, methods=methods, tasks={"cats": "cats"}, sizes=[10], regularizers={"L2": "l2"}, selection={"seeds": 2})
    group, other = study.grid.groups
    assert {cell.stage for cell in study.cells()} == {"select"} and study.unknown_cells() == 6 and plan(study).runs == 8 + 6
    scores: dict[str, list[float]] = {}
    for cell in study.cells():
        if cell.method == "Original":
            run_cell(study, cell, fakes.answer)
            scores.setdefault(cell.candidate, []).append(fakes.accuracy(cell) - 0.05)
    best = max(scores, key=lambda name: sum(scores[name]))
    assert study.chosen(group) == best and study.chosen(other) is None
    final = [cell for cell in study.cells() if cell.stage == "final"]
    assert [cell.candidate for cell in final] == [best] * 3 and {cell.method for cell in final} == {"Original"}

    def broken(cell: Cell, runs: Path, listener: object) -> Path:
        raise RuntimeError("no memory") if cell.candidate == "lr=0.1" else ValueError("no") if cell.spec.seed == 1001 else KeyError

    for cell in [cell for cell in study.cells() if cell.method == "Other" and cell.stage == "select"]:
        run_cell(study, cell, fakes.answer if cell.candidate == "lr=0.1" and cell.spec.seed == 1000 else broken)
    # Each candidate has a failed run: none may be chosen, and nothing waits for it for ever.
    assert study.chosen(other) is None and not study.selecting(other) and study.unknown_cells() == 0


def test_another_study_in_the_folder_is_refused(tmp_path: Path) -> None:
    study = make(tmp_path)
    with pytest.raises(UserError, match="holds the study fake, not other"):
        Study.create(study.folder, replace(study.grid, name="other"))
    with pytest.raises(UserError, match=r"has no study\.yaml"):
        Study.open(tmp_path)
    (study.folder / "study.yaml").write_text("grid: [", "utf-8")
    with pytest.raises(UserError, match="is damaged"):
        Study.open(study.folder)


def test_a_folder_of_rekindle_0_1_keeps_its_cells(tmp_path: Path) -> None:
    """It does not say whose defaults its runs take."""
    study = make(tmp_path)
    path = study.folder / "study.yaml"
    stored = yaml.safe_load(path.read_text("utf-8"))
    assert stored["grid"]["base"].pop("defaults") == "0.2"
    path.write_text(yaml.safe_dump(stored), encoding="utf-8")
    for again in (Study.open(study.folder), make(tmp_path)):
        assert {cell.spec.defaults for cell in again.cells()} == {"0.1"}
