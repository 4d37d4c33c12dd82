"""`--source-data`: the Fisher information comes from the source's own pictures."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rekindle
from rekindle import UserError, models
from rekindle.cli import main
from rekindle.data.samples import Preprocessing
from rekindle.methods.penalties._fisher import diagonal_fisher
from rekindle.training.checkpoints import states
from tests.data.pictures import jpeg
from tests.toys import picture_folder

FAST: dict[str, Any] = {
    "model": "tiny",
    "epochs": 1,
    "batch_size": 4,
    "lr": 0.01,
    "precision": "32",
    "image_size": 16,
    "test": False,
    "keep_checkpoints": True,
}


def pictures(folder: Path, names: list[str], first: int = 50) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(first + number))
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("target"), {"train": 4, "val": 2})


@pytest.fixture(scope="module")
def surrogate(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], rekindle.Run]:
    """Runs by method that have the target's own pictures instead."""
    out = tmp_path_factory.mktemp("surrogates")
    return functools.cache(lambda method: rekindle.fit(target, method=method, out=out, **FAST))


def fisher(run: rekindle.Run) -> dict[str, Tensor]:
    _, state = next(states(run.folder / "checkpoints", lambda path, why: None))
    found: dict[str, Tensor] = state["tuner"]["methods"][0]["state"]["fisher"]
    return found


def by_hand(paths: list[Path], estimate: str, labels: list[int]) -> dict[str, Tensor]:
    """Every picture by itself through the pre-trained network."""
    loaded = models.build("tiny")
    preprocessing = Preprocessing.of(loaded, 16)
    batches = [
        (preprocessing.normalize(preprocessing.pixels(path)[None]), torch.tensor([label]))
        for path, label in zip(paths, labels, strict=True)
    ]
    names = [name for name, _ in loaded.module.named_parameters()]
    return diagonal_fisher(loaded.module.eval(), names, batches, estimate)  # type: ignore[arg-type]


LAYOUTS = {
    "bare": [f"{number}.jpg" for number in range(5)],
    "classes": [f"{kind}/{number}.jpg" for kind in ("ape", "bee", "cow") for number in range(2)],
    "splits": [f"train/{kind}/{number}.jpg" for kind in ("ape", "bee") for number in range(3)],
}


EXPECTED, GROUPS = "l2_sp_fisher(estimate='expected')", "group_lasso_sp(fisher=True)"


@pytest.mark.parametrize(("layout", "method"), [("bare", EXPECTED), ("classes", EXPECTED), ("splits", EXPECTED), ("splits", GROUPS)])
def test_it_is_that_of_the_sources_pictures(
    layout: str, method: str, target: Path, surrogate: Callable[[str], rekindle.Run], tmp_path: Path
) -> None:
    source = pictures(tmp_path / "source", LAYOUTS[layout])
    if layout == "splits":
        pictures(source, ["val/ape/9.jpg", "test/ape/9.jpg"], first=90)  # Not its training pictures.
    run = rekindle.fit(target, method=method, source_data=str(source), out=tmp_path / "runs", **FAST)
    plain = surrogate(method)
    wanted = by_hand([source / name for name in LAYOUTS[layout]], "expected", [0] * len(LAYOUTS[layout]))
    found, other = fisher(run), fisher(plain)
    assert found and found.keys() == other.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-9)
    assert max(float((found[name] - other[name]).norm() / other[name].norm()) for name in found) > 0.1
    assert run.result["id"] != plain.result["id"]
    assert rekindle.fit(resume=run.folder).result == run.result


def test_empirical_labels_are_the_class_folders_in_order(target: Path, tmp_path: Path) -> None:
    source = pictures(tmp_path / "source", LAYOUTS["classes"])
    options = {"method": "l2_sp_fisher(estimate='empirical')", "out": tmp_path / "runs", **FAST}
    found = fisher(rekindle.fit(target, source_data=str(source), **options))
    wanted = by_hand([source / name for name in LAYOUTS["classes"]], "empirical", [0, 0, 1, 1, 2, 2])
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-4, atol=1e-9)
    with pytest.raises(UserError, match="fisher: a label is outside"):
        rekindle.fit(target, source_data=str(pictures(tmp_path / "bare", LAYOUTS["bare"])), **options)
    with pytest.raises(UserError, match="--source-data"):
        rekindle.fit(target, **options)


def test_the_id_is_by_content(target: Path, tmp_path: Path) -> None:
    def run_id(folder: Path | None, **options: object) -> str:
        given = {} if folder is None else {"source_data": str(folder)}
        return str(rekindle.fit(target, method="l2", out=tmp_path / "runs", **FAST, **given).result["id"])  # type: ignore[arg-type]

    one, same, other = (pictures(tmp_path / name, LAYOUTS["bare"], first) for name, first in (("a", 50), ("b", 50), ("c", 60)))
    assert run_id(one) == run_id(same)
    assert len({run_id(one), run_id(other), run_id(None)}) == 3


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_no_folder_of_pictures_is_one_sentence(kind: str, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "source"
    if kind == "file":
        place.write_text("")
    elif kind == "empty":
        place.mkdir()
    command = [
        "fit",
        str(target),
        "--model",
        "tiny",
        "--method",
        "l2_sp_fisher",
        "--source-data",
        str(place),
        "--out",
        str(tmp_path / "runs"),
    ]
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(place) in said and (kind == "empty" or "--source-data" in said)
