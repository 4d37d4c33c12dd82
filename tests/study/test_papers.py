"""The grids in studies/: they load at both scales, name methods that exist, and cover what the papers' tables hold."""

from pathlib import Path

import pytest
import yaml

from rekindle.study.grid import Setting
from rekindle.study.grid_file import check_recipes, from_dict, load
from rekindle.study.report.published import published

STUDIES = Path(__file__).resolve().parents[2] / "studies"
TABLES = ("rifle_table1", "rifle_table2")
GRIDS = tuple(sorted(path.stem for path in STUDIES.glob("*.yaml") if "base:" in path.read_text("utf-8")))
PAPERS = ("rifle_table1", "rifle_table2", "l2_sp_family", "dtnh", "source_classifier")


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("name", PAPERS)
def test_paper_grids_load_with_their_budgets_and_known_recipes(name: str, scale: str) -> None:
    grid = load(STUDIES / f"{name}.yaml", scale=scale)
    check_recipes(grid)
    budgets = {len(group.candidates) for group in grid.groups}
    assert grid.name == name and (budgets == {1, 3} if name in TABLES else len(budgets) == 1)
    assert all(len(group.seeds) >= 3 for group in grid.groups)
    models = {settings["model"] for group in grid.groups for settings in group.candidates.values()}
    assert models == {"resnet50.tv_in1k"} if scale == "full" else models <= {"torchvision:squeezenet1_0", "cifar_resnet56"}


def test_the_papers_networks_start_from_the_weights_of_their_time() -> None:
    """torchvision's newer weights are five points better on ImageNet than those that the papers started from."""
    for path in STUDIES.glob("*.yaml"):
        assert "torchvision:resnet50" not in path.read_text("utf-8"), path.name


@pytest.mark.parametrize(("name", "table_methods"), [("rifle_table1", 8), ("rifle_table2", 4)])
def test_rifle_tables_are_whole(name: str, table_methods: int) -> None:
    grid = load(STUDIES / f"{name}.yaml")
    places = {(group.setting.regularizer, group.setting.task, group.method) for group in grid.groups}
    own = {place for place in places if place[2] != "Original, rate chosen"}
    assert len(own) == 9 * 2 * table_methods and own <= set(published()) and {len(group.seeds) for group in grid.groups} == {5}


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("name", TABLES)
def test_rows_of_rifle_tables_differ_in_their_methods_alone(name: str, scale: str) -> None:
    """No row but the one that says so has another learning rate, and the baseline has nothing to choose."""
    grid = load(STUDIES / f"{name}.yaml", scale=scale)
    by_setting: dict[Setting, set[str]] = {}
    for group in grid.groups:
        assert (group.searches, len(group.candidates)) in ((False, 1), (True, 3))
        if group.method == "Original, rate chosen":
            continue
        for settings in group.candidates.values():
            assert settings["lr"] == (0.001 if "SqueezeNet" in group.setting.task else 0.01)
            rest = {key: value for key, value in settings.items() if key != "method"}
            by_setting.setdefault(group.setting, set()).add(repr(sorted(rest.items(), key=str)))
    assert {len(found) for found in by_setting.values()} == {1}
    assert not any(group.searches for group in grid.groups if group.method == grid.baseline)


@pytest.mark.parametrize("name", TABLES)
def test_final_runs_of_rifle_tables_train_on_all_and_the_test_selected_stand_apart(name: str) -> None:
    groups = load(STUDIES / f"{name}.yaml").groups
    assert {cell.spec.val_fraction for group in groups for cells in group.final_cells.values() for cell in cells} == {0}
    assert {cell.spec.val_fraction for group in groups for cell in group.selection_cells} == {0.2}
    assert all(group.selection.test_selected and not group.selection.equal_budgets for group in groups)


def test_tasks_exist() -> None:
    from rekindle.data.tasks import TASKS

    names = {
        settings["data"].removesuffix("+val")
        for name in PAPERS
        for group in load(STUDIES / f"{name}.yaml").groups
        for settings in group.candidates.values()
    }
    assert names <= set(TASKS)


def test_no_target_is_its_own_source() -> None:
    for group in load(STUDIES / "dtnh.yaml").groups:
        for settings in group.candidates.values():
            assert settings["data"] != "imagenet" and settings["data"] not in settings.get("weights", "default")


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_pins_the_precision(name: str, scale: str) -> None:
    """What "auto" takes depends on the machine, and the papers had 32 bits."""
    if scale == "full" or name in PAPERS:
        settings = [settings for group in load(STUDIES / f"{name}.yaml", scale=scale).groups for settings in group.candidates.values()]
        assert {found["precision"] for found in settings} == {"32"}


@pytest.mark.parametrize("scale", ["full", "small"])
@pytest.mark.parametrize("name", GRIDS)
def test_dtnh_stands_where_there_is_a_regulariser_of_transfer(name: str, scale: str) -> None:
    if scale == "full" or name in PAPERS:
        for group in load(STUDIES / f"{name}.yaml", scale=scale).groups:
            for settings in group.candidates.values():
                if settings.get("direction") == "dtnh":
                    assert {part.partition("(")[0] for part in settings["method"].split("+")} - {"l2"}, group


def test_fisher_information_is_on_one_scale_in_every_network() -> None:
    for scale in ("full", "small"):
        for group in load(STUDIES / "l2_sp_family.yaml", scale=scale).groups:
            for settings in group.candidates.values():
                assert ("isher" in settings["method"]) == ("normalize='mean'" in settings["method"])


def test_the_small_study_holds_what_it_should() -> None:
    grid = load(STUDIES / "small_study.yaml")
    check_recipes(grid)
    groups = {(group.setting.task, group.setting.size, group.setting.regularizer, group.method): len(group.seeds) for group in grid.groups}
    assert len(grid.methods) == 8 and min(groups.values()) >= 3
    for task, size in (
        ("signed digits, ResNet-56", 10),
        ("signed digits, ResNet-56", 30),
        ("signed digits, SqueezeNet", 10),
        ("clothes, SqueezeNet", 30),
    ):
        wanted = {(regularizer, method) for regularizer in ("L2", "L2-SP") for method in grid.methods} - {("L2", "DTNH")}
        assert wanted == {(regularizer, method) for where, many, regularizer, method in groups if (where, many) == (task, size)}
    assert {method for task, size, _, method in groups if size == 60} == {"Original", "RIFLE", "RIFLE-A"}
    assert {(regularizer, method) for task, size, regularizer, method in groups if size == 0} == {("L2", "Original"), ("L2", "RIFLE")}


def test_the_example_of_the_guide_is_a_study() -> None:
    guide = (STUDIES.parent / "docs" / "studies.md").read_text("utf-8")
    grid = from_dict(yaml.safe_load(guide.split("```yaml\n")[1].split("```")[0]))
    check_recipes(grid)
    assert len(grid.groups) == 2 * 2 * 2 and all(len(group.candidates) == 3 for group in grid.groups)


@pytest.mark.parametrize("name", PAPERS)
def test_paper_grids_train_as_published(name: str) -> None:
    """One learning rate for backbone and head, a random head, BatchNorm by batches, no warm-up, no clipping."""
    wanted = {"head_lr": "tied", "head_init": "random", "batchnorm": "batch", "warmup": 0.0, "clip_norm": None}
    for group in load(STUDIES / f"{name}.yaml").groups:
        for cell in (*group.selection_cells, *(cell for cells in group.final_cells.values() for cell in cells)):
            assert {option: getattr(cell.spec, option) for option in wanted} == wanted
