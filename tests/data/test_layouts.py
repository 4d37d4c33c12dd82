"""Folders as people have them: outputs among the pictures, splits one level off, test pictures without labels, leftovers everywhere."""

import unicodedata
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from rekindle.data import find_images, open_data
from rekindle.data.formats.names import split_word
from rekindle.report.figures import save

from .test_folders import each_says, many, problem, says, touch

RUN = ("spec.yaml", "data.json", "samples.png", "model.safetensors", "checkpoints/last.safetensors")
BEGUN = (".lock", "environment.json", "data.json")
CLEANED = ("clean.html", "clean.csv")
EXPORTED = ("export.json", "model.onnx", "classify.py")
STUDY = ("study.yaml", "cells/a.json", "runs/x/samples.png", "report/plot.png")


def figure(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(plt.figure(figsize=(1, 1)), path)
    path.with_suffix(".csv").touch()


@pytest.mark.parametrize("files", [RUN, BEGUN, STUDY, CLEANED, EXPORTED, (".lock",)])
@pytest.mark.parametrize("place", ["runs/photos-s0", "photos-s0", "a/photos-s0", "results/auto-photos/photos-s0", "b/deep/runs/x"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_what_rekindle_writes_is_no_data(files: tuple[str, ...], place: str, split: str, tmp_path: Path) -> None:
    touch(tmp_path, *many(f"{split}a", 4), *many(f"{split}b", 5))
    before = open_data(tmp_path).to_json()
    touch(tmp_path, *(f"{split}{place}/{name}" for name in files), "runs/notes.md")
    touch(tmp_path, *(f"runs/one/{name}" for name in RUN))
    found = open_data(tmp_path)
    assert {**found.to_json(), "notes": []} == before
    assert says("\n".join(found.notes), "written by rekindle")
    assert {path.suffix for path in find_images([tmp_path])} == {".jpg"} and len(find_images([tmp_path])) == 9


@pytest.mark.parametrize("place", ["rank/rank.png", "rank.png", "a/curves.png", "train/rank/rank.png"])
def test_figures_of_rekindle_are_no_data_and_others_are(place: str, tmp_path: Path) -> None:
    prefix = "train/" if place.startswith("train") else ""
    touch(tmp_path, *many(f"{prefix}a", 4), *many(f"{prefix}b", 5))
    figure(tmp_path / place)
    assert open_data(tmp_path).classes == ["a", "b"] and len(find_images([tmp_path])) == 9
    touch(tmp_path, f"{prefix}a/own.png", f"{prefix}a/own.csv")
    assert len(find_images([tmp_path])) == 10


def test_a_run_folder_is_no_data(tmp_path: Path) -> None:
    assert says(problem(touch(tmp_path, *RUN)), tmp_path, "run's")


TRAIN_AND_TEST = [
    ("seg_train", "seg_test"),
    ("training_set", "test_set"),
    ("TrainImages", "TestImages"),
    ("trainA", "testA"),
    ("Train", "Valid"),
]


@pytest.mark.parametrize(("train", "test"), TRAIN_AND_TEST)
@pytest.mark.parametrize("inner", ["", "{0}/", "images/"])
@pytest.mark.parametrize("top", ["", "archive/"])
def test_splits_by_another_name_are_no_classes(train: str, test: str, inner: str, top: str, tmp_path: Path) -> None:
    for name in (train, test):
        touch(tmp_path, *(file for label in "ab" for file in many(f"{top}{name}/{inner.format(name)}{label}", 5)))
    text = problem(tmp_path)
    if top:
        assert says(text, "archive")
    else:
        assert says(text, tmp_path / train, "train", "val", "test") and says(text, tmp_path / test)


@pytest.mark.parametrize(("train", "test"), TRAIN_AND_TEST[:4])
def test_flat_splits_are_no_classes(train: str, test: str, tmp_path: Path) -> None:
    touch(tmp_path, *many(train, 5), *many(test, 5))
    assert says(problem(tmp_path), tmp_path / train, "split")


@pytest.mark.parametrize("splits", [("train", "test"), ("Training", "Validation"), ("fold/train_set", "fold/test_set")])
@pytest.mark.parametrize("top", ["", "train/"])
def test_splits_below_the_classes_are_refused(splits: tuple[str, str], top: str, tmp_path: Path) -> None:
    touch(tmp_path, *(file for label in "ab" for split in splits for file in many(f"{top}{label}/{split}", 5)))
    assert says(problem(tmp_path), tmp_path / top / "a", "splits inside a class")


@pytest.mark.parametrize(("outer", "inner"), [("train", "train"), ("train", "seg_train"), ("train", "Train")])
def test_a_split_inside_a_folder_of_its_name_is_read(outer: str, inner: str, tmp_path: Path) -> None:
    touch(tmp_path, *(file for label in "ab" for file in many(f"train/{inner}/{label}", 5)))
    touch(tmp_path, *(file for label in "ab" for file in many(f"test/{inner.replace('rain', 'est')}/{label}", 2)), "train/.DS_Store")
    assert open_data(tmp_path).counts() == {split: {"a": n, "b": n} for split, n in (("train", 4), ("val", 1), ("test", 2))}


@pytest.mark.parametrize(
    "names",
    [("bullet_train", "car"), ("bullet_train", "test_tube"), ("trainer", "testament"), ("valley", "developer"), ("contest", "restrain")],
)
def test_classes_whose_names_only_sound_like_splits_stay(names: tuple[str, str], tmp_path: Path) -> None:
    assert open_data(touch(tmp_path, *(file for name in names for file in many(name, 5)))).classes == sorted(names)


def test_classes_that_hold_folders_of_the_same_names_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, *(file for label in "ab" for part in ("cats", "dogs") for file in many(f"{label}/{part}", 5)))
    assert says("\n".join(open_data(tmp_path).notes), tmp_path, "a, b", "cats, dogs", "FOLDER/CLASS/picture.jpg")


def test_words_of_splits() -> None:
    assert {split_word(name) for name in ("seg_train", "SEG-Training", "seg train images")} == {("train", "seg")}
    assert {split_word(name) for name in ("brain", "protest", "evaluate", "latest", "trainee", "value", "validity")} == {("", "")}


@pytest.mark.parametrize(
    "files",
    [many("test", 6), many("test/unknown", 6), many("test/test", 6), many("test/test_images", 6), [*many("test", 2), *many("test/x", 4)]],
)
@pytest.mark.parametrize("split", ["test", "val", "valid"])
def test_pictures_without_labels_beside_train_are_left_out(files: list[str], split: str, tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 5), *many("train/b", 5), *(name.replace("test", split, 1) for name in files))
    found = open_data(tmp_path)
    assert found.counts() == {"train": {"a": 4, "b": 4}, "val": {"a": 1, "b": 1}}
    assert len(found.notes) == 1 and says(found.notes[0], "left out", "labels", "6 pictures")


def test_a_class_of_its_own_in_test_beside_others_is_still_refused(tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 5), *many("train/b", 5), *many("test/a", 5), *many("test/c", 5))
    assert says(problem(tmp_path), tmp_path, "class c", "missing from train")


@pytest.mark.parametrize("leftover", [".ipynb_checkpoints/a.jpg", "Thumbs.db", "readme.txt", "deep/er.jpg"])
def test_leftovers_of_many_classes_are_told_once(leftover: str, tmp_path: Path) -> None:
    classes = [f"class{number:02}" for number in range(60)]
    touch(tmp_path, *(file for name in classes for file in [*many(name, 4), f"{name}/{leftover}"]))
    notes = open_data(tmp_path).notes
    assert len(notes) == 1 and says(notes[0], tmp_path, "60", "such as", f"class00/{leftover.removesuffix('/a.jpg')}")


def test_both_spellings_of_an_accent_are_one_class(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "Müsli") for form in ("NFC", "NFD"))
    touch(tmp_path, *many(f"train/{two}", 5), *many("train/b", 5), *many(f"test/{one}", 2), *many("test/b", 2))
    assert open_data(tmp_path).classes == [one, "b"] and open_data(tmp_path).counts()["test"] == {one: 2, "b": 2}
    touch(tmp_path, *many(f"train/{one}", 5))
    assert says(problem(tmp_path), "accents")


def test_one_class_below_train_is_told(tmp_path: Path) -> None:
    assert each_says(
        problem(touch(tmp_path, *many("train/a/x", 3), *many("train/a/y", 3))).splitlines()[1:], ("1 class folder", tmp_path / "train/a")
    )
