"""Pictures that a CSV file names neither train nor validate; those of the test split stay, and everything is told."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rekindle
from rekindle.data import Dataset, open_data
from rekindle.errors import UserError, agree, number_of
from rekindle.files import csv_text
from tests.toys import picture_folder

LAYOUTS = {"bare": {"": 12}, "train": {"train": 9, "test": 3}, "split": {"train": 6, "val": 3, "test": 3}}
FAST: dict[str, Any] = {"model": "tiny", "epochs": 1, "batch_size": 4, "lr": 0.01, "precision": "32", "image_size": 16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: picture_folder(tmp_path_factory.mktemp(name), layout) for name, layout in LAYOUTS.items()}


def names(dataset: Dataset, *splits: str) -> set[str]:
    return {dataset.relative(path) for split in splits for path in dataset.splits[split].paths}


def write(file: Path, paths: list[str]) -> str:
    file.write_text(csv_text(["path", "kind"], [[path, "label"] for path in paths]), "utf-8")
    return str(file)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=8, deadline=None)
@given(chosen=st.sets(st.integers(0, 23), min_size=1, max_size=6), seed=st.integers(0, 3))
def test_none_of_them_trains_or_validates_and_the_test_split_is_as_it_was(
    layout: str, folders: dict[str, Path], chosen: set[int], seed: int
) -> None:
    root = folders[layout]
    whole = open_data(root, seed=seed)
    everything = sorted(names(whole, *whole.splits))
    asked = {everything[place] for place in chosen}
    with tempfile.TemporaryDirectory() as place:
        file = write(Path(place, "out.csv"), sorted(asked))
        try:
            found = open_data(root, seed=seed, exclude=file)
        except UserError as error:  # All of a class, or of validation.
            assert "--exclude" in str(error)
            return
    assert names(found, "test") == names(whole, "test")
    assert names(found, "train", "val") == names(whole, "train", "val") - asked
    tested = len(asked & names(whole, "test"))
    assert f"{number_of(len(asked) - tested, 'picture', 'is')} left out" in " ".join(found.notes)
    staying = f"{tested} of its pictures {agree(tested, 'is')} in the test split and {agree(tested, 'stays')} there"
    assert (staying in " ".join(found.notes)) == bool(tested)


def test_a_subset_is_as_large_as_was_asked_for_and_holds_none_of_them(folders: dict[str, Path], tmp_path: Path) -> None:
    gone = sorted(names(open_data(folders["bare"], per_class=4), "train"))[:3]
    found = open_data(folders["bare"], per_class=4, exclude=write(tmp_path / "out.csv", gone))
    assert set(found.counts()["train"].values()) == {4} and not names(found, "train", "val") & set(gone)


SPELLINGS = {
    "relative": "path\n{name}\n", "whole": "path\n{whole}\n", "dotted": "path\n./{name}\n", "mark": "\ufeffpath;kind\r\n{name};label\r\n",
    "tabs": "kind\tpath\nlabel\t{name}\n", "quoted": 'path,kind\n"{name}",x\n',
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_may_be_written_as_spreadsheets_and_people_do(spelling: str, folders: dict[str, Path], tmp_path: Path) -> None:
    name, file = "train/class0/002.png", tmp_path / "out.csv"
    file.write_bytes(SPELLINGS[spelling].format(name=name, whole=folders["split"] / name).encode())
    found = open_data(folders["split"], exclude=str(file))
    assert len(names(found, "train")) == 11 and name not in names(found, "train")


def test_accents_and_commas_in_the_names_of_a_table_are_found(folders: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, name in enumerate(["-x.png", "e\u0301.png", "a,b.png", "c.png", "d.png"]):
        for kind in ("class0", "class1"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            (root / kind / name).write_bytes((folders["bare"] / kind / f"{number:03d}.png").read_bytes())
    (root / "labels.csv").write_text(
        csv_text(["path", "label", "split"], [[f"{kind}/{path.name}", kind, "train"] for kind in ("class0", "class1") for path in sorted((root / kind).iterdir())]), "utf-8",
    )  # fmt: skip
    file = write(tmp_path / "out.csv", ["class0/\u00e9.png", "class1/a,b.png"])
    found = open_data(root / "labels.csv", exclude=file)
    assert len(names(found, *found.splits)) == 8 and not any(
        "c/" in name or "a,b" in name for name in names(found, *found.splits) if "class1" in name
    )


MISTAKES = {
    "there is no such file": (None, "cannot be read"),
    "another column": ("file\nx.png\n", "has no column path"),
    "empty": ("", "has no column path"),
    "not UTF-8": (b"path\n\xff\n", "not UTF-8"),
    "nothing known": ("path\nx.png\n", "none is in"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_cannot_be_meant_is_refused_in_a_sentence(mistake: str, folders: dict[str, Path], tmp_path: Path) -> None:
    content, words = MISTAKES[mistake]
    file = tmp_path / "out.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words):
        open_data(folders["split"], exclude=str(file))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_class_or_a_validation_split_without_pictures_is_refused(layout: str, folders: dict[str, Path], tmp_path: Path) -> None:
    whole = open_data(folders[layout])
    for split, kind in (("train", "class0"), ("val", "class")):
        gone = [name for name in names(whole, "train", "val") if kind in name and (layout != "split" or name.startswith(split))]
        with pytest.raises(UserError, match="--exclude .* (leaves class|names all validation)"):
            open_data(folders[layout], exclude=write(tmp_path / "out.csv", gone))


def test_unknown_names_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    found = open_data(folders["split"], exclude=write(tmp_path / "out.csv", ["train/class0/000.png", "gone.png"]))
    assert "1 of its names belongs to no picture of these data: gone.png" in found.notes[-1]


def test_a_run_is_known_by_what_is_left_out_wherever_the_file_lies(folders: dict[str, Path], tmp_path: Path) -> None:
    def run(*gone: str, file: str = "out.csv") -> str:
        exclude = write(tmp_path / file, list(gone)) if gone else None
        return rekindle.fit(folders["split"], out=tmp_path / "runs", exclude=exclude, **FAST).folder.name

    one, whole = run("train/class0/000.png"), run()
    assert one != whole
    assert one == run("train/class0/000.png", file="moved.csv")
    assert whole == run("test/class0/001.png"), "pictures of the test split stay, so nothing is different"
