"""A study's file: its product, its selection, and what its errors say."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from rekindle.errors import UserError
from rekindle.spec import NONE_WORDS
from rekindle.study.grid_file import NOT_MINE, SETTINGS, check_recipes, from_dict, load
from tests.study.fakes import GRID


def grid(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GRID), **changes}


def test_product_with_paired_seeds() -> None:
    made = from_dict(grid())
    assert len(made.settings) == 2 * 2 * 2 and len(made.groups) == 8 * 3
    cells = [cell for group in made.groups for cell in group.final_cells[""]]
    assert len({cell.key for cell in cells}) == len(cells) == 72
    by_place: dict[Any, list[Any]] = {}
    for cell in cells:
        by_place.setdefault((cell.setting, cell.spec.seed), []).append(cell.spec)
    for specs in by_place.values():
        # All that decides subset, split and batch order is equal across methods.
        assert len(specs) == 3 and len({(s.data, s.seed, s.per_class, s.val_fraction, s.batch_size, s.epochs) for s in specs}) == 1
        assert len({s.method for s in specs}) == 3


def test_blocks_are_parts_of_the_product_and_join_seeds() -> None:
    blocks = [
        {"sizes": [10]},
        {"sizes": [30], "methods": ["RIFLE"], "regularizers": "L2", "seeds": [0, 7]},
        {"sizes": [30], "methods": ["RIFLE"], "seeds": 1},
    ]
    made = from_dict(grid(blocks=blocks))
    assert sum(len(group.seeds) for group in made.groups if group.setting.size == 10) == 3 * 2 * 2 * 3
    seeds = {(group.setting.task, group.setting.regularizer): group.seeds for group in made.groups if group.setting.size == 30}
    assert seeds == {(task, name): (0, 7) if name == "L2" else (0,) for task in ("cats", "dogs") for name in ("L2", "L2-SP")}


def test_candidates_fill_recipes_and_settings() -> None:
    methods = {
        "Original": {"method": "{regularizer}", "grid": {"lr": ["1e-3", 0.01]}},
        "Grod": {"method": "{regularizer}", "direction": "grod(rho={rho})", "grid": {"rho": [0.5, 1.0]}, "epochs": 7},
    }
    made = from_dict(grid(methods=methods, selection={"seeds": 2, "settings": {"val_fraction": 0.3}}))
    check_recipes(made)
    original, grod = made.groups[0], next(group for group in made.groups if group.method == "Grod")
    assert [cell.spec.lr for cell in original.selection_cells] == [0.001, 0.01] * 2
    assert {cell.spec.seed for cell in original.selection_cells} == {1000, 1001}
    assert all(not cell.spec.test and cell.spec.val_fraction == 0.3 for cell in original.selection_cells)
    assert all(cell.spec.test and cell.spec.val_fraction == 0.2 for cells in original.final_cells.values() for cell in cells)
    assert {cell.spec.direction for cell in grod.final_cells["rho=0.5"]} == {"grod(rho=0.5)"} and grod.final_cells["rho=1.0"][
        0
    ].spec.epochs == 7


def test_final_runs_may_train_on_the_validation_pictures_but_the_choosing_ones_may_not() -> None:
    methods = {"Original": {"method": "{regularizer}", "grid": {"lr": [0.1, 0.01]}}}
    made = from_dict(grid(methods=methods, base={"val_fraction": 0}, selection={"settings": {"val_fraction": 0.2}}))
    group = made.groups[0]
    assert {cell.spec.val_fraction for cell in group.selection_cells} == {0.2}
    assert {cell.spec.val_fraction for cells in group.final_cells.values() for cell in cells} == {0}
    with pytest.raises(UserError, match="val_fraction"):
        from_dict(grid(methods=methods, base={"val_fraction": 0}))
    assert from_dict(grid(base={"val_fraction": 0})).groups


def test_every_method_chooses_among_the_shared_values_and_a_task_may_have_its_own() -> None:
    tasks = {"cats": {"data": "cats"}, "dogs": {"data": "dogs", "shared": {"lr": [0.5]}}}
    methods = {"Original": "l2", "Dropout": {"method": "l2+dropout(p={p})", "grid": {"p": [0.1, 0.2]}}}
    made = from_dict(grid(tasks=tasks, methods=methods, shared={"lr": ["1e-3", 0.01]}, selection={"seeds": 2, "equal_budgets": False}))
    found = {(group.setting.task, group.method): group for group in made.groups}
    assert list(found["cats", "Original"].candidates) == ["lr=0.001", "lr=0.01"]
    assert list(found["cats", "Dropout"].candidates) == ["lr=0.001, p=0.1", "lr=0.001, p=0.2", "lr=0.01, p=0.1", "lr=0.01, p=0.2"]
    assert list(found["dogs", "Original"].candidates) == ["lr=0.5"] and not found["dogs", "Original"].searches
    assert found["cats", "Dropout"].candidates["lr=0.01, p=0.2"]["lr"] == 0.01
    assert {cell.spec.lr for cell in found["cats", "Original"].selection_cells} == {0.001, 0.01}
    with pytest.raises(UserError, match="Original has 2 candidates but Dropout has 4"):
        from_dict(grid(tasks=tasks, methods=methods, shared={"lr": [0.001, 0.01]}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metods": {}}, ["'metods'", "allowed are", "methods"]),
        ({"tasks": {}}, ["'tasks'", "missing or empty"]),
        ({"name": "../x"}, ["name", "'../x'"]),
        ({"baseline": "Orig"}, ["baseline", "Original, RIFLE, Dropout", "'Orig'"]),
        ({"base": {"epoch": 3}}, ["base", "'epoch'", "epochs"]),
        ({"base": {"epochs": "forty"}}, ["base.epochs", "whole number", "'forty'"]),
        ({"base": {"keep": "first"}}, ["base.keep", "last", "best", "'first'"]),
        ({"base": {"flip": 1}}, ["base.flip", "True or False"]),
        ({"base": {"per_class": 3}}, ["base.per_class", "'sizes'"]),
        ({"base": {"batch_size": 1}}, ["base.batch_size", "at least 2"]),
        ({"sizes": [-1]}, ["sizes", "[-1]"]),
        ({"seeds": 0}, ["seeds", "at least 1", "found 0"]),
        ({"seeds": 10**9}, ["seeds", "at most 10000", "found 1000000000"]),
        ({"sizes": list(range(300)), "seeds": 9999}, ["runs, more than the 100000 of one study"]),
        ({"regularizers": {}}, ["regularizers is empty"]),
        ({"tasks": {"cats": {"model": "tiny"}}}, ["tasks.cats", "'data'"]),
        ({"methods": {"A": {"grid": {}}}}, ["methods.A", "'method'"]),
        ({"methods": {"A": "l2+dropout(p={p})"}}, ["methods.A", "{p}", "grid"]),
        ({"methods": {"A": "l2+dropout(p={p)"}}, ["methods.A", "brace"]),
        ({"methods": {"A": {"method": "l2", "grid": {"p": [1]}}}}, ["methods.A.grid.p", "braces", "settings are"]),
        ({"methods": {"A": {"method": "l2", "grid": {"lr": 0.1}}}}, ["methods.A.grid.lr", "list"]),
        ({"methods": {"A": "l2", "B": {"method": "l2", "grid": {"lr": [0.1, 0.2]}}}}, ["A has 1 candidate but B has 2", "equal_budgets"]),
        ({"methods": {"A": {"method": "l2", "grid": {"lr": [0.1, 0.2]}}}, "selection": {"seeds": [2]}}, ["selection.seeds", "both have 2"]),
        ({"shared": {"lr": 0.1}}, ["shared.lr", "list"]),
        ({"shared": {"rate": [0.1]}}, ["shared.rate", "settings are"]),
        ({"shared": {"per_class": [10]}}, ["shared.per_class"]),
        ({"tasks": {"cats": {"data": "cats", "shared": {"lr": []}}}}, ["tasks.cats.shared.lr", "list"]),
        (
            {"shared": {"lr": [0.1]}, "methods": {"A": {"method": "l2", "grid": {"lr": [0.1]}}}},
            ["methods.A", "shared.lr", "one of the two"],
        ),
        ({"shared": {"lr": [0.1]}, "methods": {"A": {"method": "l2", "lr": 0.1}}}, ["methods.A", "shared.lr", "one of the two"]),
        ({"shared": {"lr": ["fast", 0.1]}, "methods": {"A": "l2"}}, ["lr", "'fast'"]),
        ({"selection": {"test_selected": "yes"}}, ["selection.test_selected", "true or false"]),
        ({"blocks": [{"tasks": ["cows"]}]}, ["blocks[0].tasks", "cats, dogs", "'cows'"]),
        ({"blocks": {}}, ["blocks", "list"]),
        ({"regularizers": None, "methods": {"A": "l2"}}, ["regularizers", "mapping"]),
    ],
)
def test_errors_name_the_key_and_what_is_allowed(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(grid(**changes))
    for word in words:
        assert word in str(caught.value)


def test_a_recipe_without_regularizers_may_not_ask_for_one() -> None:
    with pytest.raises(UserError, match="no key 'regularizers'"):
        from_dict({"name": "a", "tasks": {"t": "x"}, "methods": {"A": "{regularizer}"}})


def test_unknown_methods_are_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match=r"methods\.A: there is no method 'rifel'; did you mean rifle"):
        check_recipes(from_dict(grid(methods={"A": "rifel"})))


@pytest.mark.parametrize("base", [{}, {"model": "auto"}])
def test_a_study_names_its_network(base: dict[str, str]) -> None:
    """Each run would choose for itself; in rekindle 0.1.0 it was resnet18."""
    with pytest.raises(UserError, match="a study compares methods on one network; name it in base"):
        check_recipes(from_dict(grid(base=base)))
    check_recipes(from_dict(grid(base={"defaults": "0.1"})))


def test_small_scale_replaces_keys_and_roots_go_before_what_exists(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "net.safetensors").touch()
    small = {"base": {"model": "tiny", "weights": "net.safetensors"}, "seeds": 1}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid(small=small)), "utf-8")
    full = load(tmp_path / "grid.yaml")
    made = load(tmp_path / "grid.yaml", scale="small", data_root=str(tmp_path), weights_root=str(tmp_path))
    assert {group.seeds for group in full.groups} == {(0, 1, 2)} and {group.seeds for group in made.groups} == {(0,)}
    assert {settings["data"] for group in made.groups for settings in group.candidates.values()} == {str(tmp_path / "cats"), "dogs"}
    assert made.groups[0].candidates[""]["weights"] == str(tmp_path / "net.safetensors") and "epochs" not in made.groups[0].candidates[""]
    assert from_dict(made.raw).groups == made.groups
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(grid()), "utf-8")
    with pytest.raises(UserError, match=r"plain\.yaml: there is no key 'small'"):
        load(tmp_path / "plain.yaml", scale="small")


def test_a_file_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [", "utf-8")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a", "utf-8")
    with pytest.raises(UserError, match="the file must be a mapping"):
        load(tmp_path / "list.yaml")


@pytest.mark.parametrize("where", ["base", "tasks", "methods", "selection"])
@pytest.mark.parametrize("name", sorted(set(SETTINGS) - set(NOT_MINE) - set(NONE_WORDS)))
def test_a_setting_that_has_no_word_for_nothing_takes_no_null(name: str, where: str) -> None:
    raw = {
        "name": "x", "title": "X", "seeds": 1, "base": {"model": "tiny"}, "tasks": {"t": {"data": "photos"}},
        "methods": {"M": {"method": "l2", "grid": {"lr": [0.1, 0.2]}}}, "selection": {"seeds": 1, "settings": {}},
    }  # fmt: skip
    place: dict[str, Any] = {
        "base": raw["base"],
        "tasks": raw["tasks"]["t"],
        "methods": raw["methods"]["M"],
        "selection": raw["selection"]["settings"],
    }[where]  # type: ignore[index]
    place[name] = None
    with pytest.raises(UserError, match=rf"\.{name}\b.* found None|needs the key"):
        from_dict(raw)
