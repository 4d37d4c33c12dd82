"""The board: rows from runs, methods at their best, statistics by hand, and sentences for what is wrong."""

import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from scipy import stats

import rekindle
from rekindle import UserError
from rekindle.board.numbers import Board, Standing, board_of, label
from rekindle.board.page import conclusion, html, markdown
from rekindle.board.row import ROW, Row, add, read_rows, row_of
from rekindle.cli import main
from rekindle.fitting.soup import soup
from rekindle.report.statistics import holm
from tests.toys import TINY_RUN, picture_folder


def row(method: str = "l2", seed: int = 0, test: float | None = 0.5, **changes: Any) -> Row:
    """A row that a run could have given; `test=None` is one that chooses."""
    found: dict[str, Any] = {
        "run": f"{abs(hash((method, seed, str(changes)))):012x}"[:12], "task": "cats", "network": "tiny", "weights": "none", "image_size": 32,
        "per_class": 10, "pictures": 20, "classes": 2, "method": method, "direction": "plain_sum", "seed": seed, "settings": {"lr": 0.01},
        "seconds": 1.0, "finished": "2026-01-01 00:00", "packages": {"rekindle": "0.1.0"}, "hardware": "2 cores, x86_64", "by": "",
        **({} if test is None else {"test": test}), **changes,
    }  # fmt: skip
    return ROW.checked(Path("row.json"), found)


def standing(board: Board, method: str, task: str = "cats") -> Standing:
    [found] = [one for one in board.standings if one.method == method and one.setting.task == task]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    data = picture_folder(root / "data" / "toys", {"train": 6, "val": 4, "test": 4})
    for seed, method in ((0, "l2"), (0, "l2+rifle(periods=2)"), (1, "l2")):
        options: dict[str, Any] = {"model": "tiny", "weights": "none", "image_size": 16, "epochs": 2, "lr": 0.01, "batch_size": 4}
        rekindle.fit(data, method=method, seed=seed, out=root / "runs", **options)
    return root / "runs"


def test_the_row_of_a_run_says_what_the_run_says(finished: Path, tmp_path: Path) -> None:
    [folder] = finished.glob("*rifle*")
    found, result = row_of(folder, "A. Name"), json.loads((folder / "result.json").read_text())
    assert (found["test"], found["val"]) == (result["test"]["accuracy"], result["val"]["accuracy"])
    assert (found["task"], found["network"], found["method"], found["seed"]) == ("toys", "tiny", "l2+rifle(periods=2)", 0)
    assert (found["pictures"], found["classes"], found["by"]) == (12, 2, "A. Name")
    assert {**found["settings"], "precision": "32"} == {"precision": "32", "epochs": 2, "lr": 0.01, "batch_size": 4, "augment": None}
    assert str(finished) not in json.dumps(found), "no path of this machine"
    files = add([finished], tmp_path / "board", "A. Name")
    assert len(files) == 3 and files == add([finished], tmp_path / "board", "A. Name")
    assert {one["run"] for one in read_rows(tmp_path / "board")} == {json.loads(path.read_text())["run"] for path in files}


def test_a_method_stands_at_its_best_on_validation_and_never_on_test() -> None:
    rows = [
        *(row(seed=seed, test=0.5 + 0.01 * seed, settings={"lr": 0.01, "precision": ["32", "bf16"][seed % 2]}) for seed in range(3)),
        # The higher rate is worse on validation and better on test.
        row("l2+dropout(p=0.1)", 1000, None, val=0.9, settings={"lr": 0.01, "val_fraction": 0.2}), row("l2+dropout(p=0.1)", 1000, None, val=0.7, settings={"lr": 0.1}),
        *(row("l2+dropout(p=0.1)", seed, 0.6 + 0.01 * seed) for seed in range(3)),
        *(row("l2+dropout(p=0.1)", seed, 0.9, settings={"lr": 0.1}, val=0.99) for seed in range(3)),
    ]  # fmt: skip
    best = standing(board_of(rows), "l2+dropout")
    assert standing(board_of(rows), "l2").tests == {0: 0.5, 1: 0.51, 2: 0.52}
    assert best.tests == {0: 0.6, 1: 0.61, 2: 0.62} and best.candidates == 2 and '"lr": 0.01' in best.candidate
    alone = board_of([*rows[:4], row("l2+dropout(p=0.2)", 1000, None, val=0.95)])
    assert not [one for one in alone.standings if one.method == "l2+dropout"]
    assert any("no test accuracy" in note for note in alone.notes)


def test_statistics_by_hand() -> None:
    gains = {"cats": [0.10, 0.11, 0.09], "dogs": [0.02, -0.01, 0.0], "cows": [0.05, 0.05, 0.05]}
    rows = []
    for task, values in gains.items():
        for seed, gain in enumerate(values):
            rows += [row(seed=seed, test=0.5 + 0.01 * seed, task=task), row("l2_sp", seed, 0.5 + 0.01 * seed + gain, task=task)]
    board = board_of(rows)
    [over] = board.overall
    tasks = [mean(values) for values in gains.values()]
    interval = stats.t.interval(0.95, 2, mean(tasks), stats.sem(tasks))
    assert over["difference"] == pytest.approx(mean(tasks)) and (over["low"], over["high"]) == pytest.approx(interval)
    assert over["tasks"] == over["settings"] == 3 and over["p"] is None
    p = {task: stats.ttest_1samp(values, 0).pvalue for task, values in gains.items() if task != "cows"}
    corrected = dict(zip(gains, holm([p["cats"], p["dogs"], None]), strict=True))
    for task in gains:
        pair = standing(board, "l2_sp", task).pair
        assert pair is not None and pair["p_holm"] == (None if corrected[task] is None else pytest.approx(corrected[task]))
    assert (over["wins"], over["ties"], over["losses"]) == (1, 2, 0)
    assert board.ranks == {"l2": pytest.approx(2.0), "l2_sp": pytest.approx(1.0)}
    assert "of 3 comparisons in single settings 1 is won and 0 lost for sure" in conclusion(board)


def test_ranks_are_over_settings_that_all_methods_share() -> None:
    """One method's better network must not lift its rank."""
    rows = [row(), row("l2_sp", test=0.4), row("l2_sp", test=0.9, network="large")]
    board = board_of(rows)
    assert board.ranks == {"l2": 1.0, "l2_sp": 2.0}
    assert board.notes == ["cats, 10 a class, large at 32: there is no plain fine-tuning (l2) to compare with."]


@pytest.mark.parametrize(
    ("recipe", "direction", "name"),
    [
        ("l2(alpha=0.01)+rifle(periods=4)", "plain_sum", "l2+rifle"), ("l2_sp", "dtnh(granularity='layer')", "l2_sp, dtnh"),
        ("l2", "plain_sum()", "l2"), ("rifle(when='fitted')+l2", "plain_sum", "rifle+l2"), ("none", "plain_sum", "none"),
    ],
)  # fmt: skip
def test_labels_leave_options_out(recipe: str, direction: str, name: str) -> None:
    assert label(recipe, direction) == name


def test_pages_hold_every_standing_and_escape_names() -> None:
    board = board_of([row(task="<b>cats|dogs"), row("l2_sp", test=0.6, task="<b>cats|dogs", by="<i>")])
    page, text = html(board), markdown(board)
    assert "<b>cats" not in page and "<i>" not in page and "+10.0" in page and "+10.0" in text
    assert all(
        line.count("|") - line.count("\\|") == 9 for line in text.splitlines() if line.startswith("| ") and "l2" in line and "cats" in line
    )


def test_the_command_adds_renders_and_tells_what_is_wrong(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["board"]) == 2 and "there is no folder board" in capsys.readouterr().err
    assert main(["board", "--add", str(finished), "--by", "A. Name"]) == 0
    printed = capsys.readouterr().out
    assert "l2+rifle" in printed and "3 runs, 3 of which have read a test split" in printed and "board.html" in printed
    assert main(["board", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == 3
    path = next(Path("board").glob("*.json"))
    for wrong, words in (
        ('{"format": 9}', "later rekindle"),
        ("[]", "damaged"),
        (json.dumps({**json.loads(path.read_text()), "test": 93.5}), "test"),
    ):
        shutil.copy(path, "kept")
        path.write_text(wrong)
        assert main(["board"]) == 1
        said = capsys.readouterr().err
        assert path.name in said and words in said and len(said.splitlines()) == 1
        shutil.copy("kept", path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no finished run"):
        add([tmp_path / "empty"], tmp_path / "board")


def test_a_fold_is_no_row(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 6, "val": 2, "test": 2})
    folds = rekindle.fit(data, folds=2, out=tmp_path / "runs", **TINY_RUN)
    with pytest.raises(UserError, match="is a fold of a cross-validation"):
        add([folds.runs[0].folder], tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_a_soup_is_no_row_and_a_folder_of_runs_is_added_without_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "runs")
    plain = sorted(path.parent for path in (tmp_path / "runs").glob("*-l2-*/result.json"))
    made = soup(plain, kind="uniform", out=tmp_path / "runs").folder
    with pytest.raises(UserError, match="is a soup"):
        add([made], tmp_path / "board")
    assert main(["board", str(tmp_path / "board"), "--add", str(tmp_path / "runs"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["runs"] == 3 and "is a soup" in said.err


@pytest.mark.parametrize("method", ["greedy soup of l2, l2_sp", "l2-sp", "__import__('os').name", ""])
def test_a_row_of_somebody_else_whose_method_is_no_recipe(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ROW.write(tmp_path / "theirs.json", row(method))
    assert main(["board", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "theirs.json is damaged (its method" in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("more", [{"fraction": 0.1}, {"test_fraction": 0.3}, {"group_pattern": "a"}, {"exclude": "clean.csv 01234567"}])
def test_runs_on_other_pictures_do_not_meet(more: dict[str, Any]) -> None:
    settings = {"lr": 0.01, **more}
    rows = [row(), row("l2_sp", settings=settings, test=0.9), row("l2", settings=settings, test=0.8)]
    board = board_of(rows)
    [pair] = [one.pair for one in board.standings if one.method == "l2_sp"]
    assert pair is not None and pair["difference"] == pytest.approx(0.1)
    assert len(board.standings) == 3 and all(one.candidates == 1 for one in board.standings)
    [(name, value)] = more.items()
    assert any(f"--{name.replace('_', '-')} {value}" in str(one.setting) for one in board.standings)


def test_a_row_names_what_is_left_out_and_what_the_source_saw(tmp_path: Path) -> None:
    data = picture_folder(tmp_path / "data", {"train": 6, "val": 2, "test": 2})
    file = tmp_path / "clean.csv"
    file.write_text(f"path\n{next((data / 'train').rglob('*.png')).relative_to(data).as_posix()}\n")
    run = rekindle.fit(data, exclude=str(file), source_data=str(data / "train"), out=tmp_path / "runs", **TINY_RUN)
    found = row_of(run.folder)["settings"]
    assert found["source_data"] == "train"
    assert found["exclude"].startswith("clean.csv ") and len(found["exclude"]) == 18 and str(tmp_path) not in json.dumps(found)


def test_names_of_rows_are_names_of_files_everywhere(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [folder] = finished.glob("*rifle*")
    found = row_of(folder)
    monkeypatch.setattr("rekindle.board.row.row_of", lambda folder, by: {**found, "task": "hf:beans", "network": "torchvision:resnet 18"})
    [path] = add([folder], tmp_path / "board")
    assert path.name == f"beans-resnet-18-{found['run']}.json"


def test_our_own_board_is_rendered_as_it_stands() -> None:
    folder = Path(__file__).resolve().parents[2] / "docs/results/board"
    assert markdown(board_of(read_rows(folder))) == (folder / "board.md").read_text("utf-8")
