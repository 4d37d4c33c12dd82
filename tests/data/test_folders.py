"""Folders of every shape: split by rule, or every fault told by path at once."""

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.data import Dataset, find_images, open_data
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture
from rekindle.data.formats.names import not_text
from rekindle.data.splits import Found, SplitRules, split_key
from rekindle.errors import UserError


def says(text: str, *parts: object) -> bool:
    """Whether one line of a message holds all these names, numbers and options whole: how it is worded besides is free to change."""
    return any(all(re.search(rf"(?<![\w-]){re.escape(str(part))}(?![\w/-])", line) for part in parts) for line in text.splitlines())


def each_says(lines: list[str], *expected: tuple[object, ...]) -> bool:
    """Whether there are as many lines as expected, each with its parts."""
    return len(lines) == len(expected) and all(says(line, *parts) for line, parts in zip(lines, expected, strict=True))


def touch(root: Path, *names: str) -> Path:
    """Empty files: scanning judges names and places, decoding judges bytes."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def many(folder: str, count: int, ending: str = ".jpg") -> list[str]:
    return [f"{folder}/{index:03d}{ending}" for index in range(count)]


def names(dataset: Dataset, split: str, label: int | None = None) -> list[str]:
    part = dataset.splits[split]
    return [dataset.relative(path) for path, of in zip(part.paths, part.labels.tolist(), strict=True) if label in (None, of)]


def problem(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        open_data(root, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_three_folders_are_used_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 3), ("test", 2)):
        touch(tmp_path, *many(f"{split}/a", count), *many(f"{split}/b", count + 1))
    found = open_data(tmp_path, seed=0)
    assert found.classes == ["a", "b"]
    assert found.counts() == {"train": {"a": 5, "b": 6}, "val": {"a": 3, "b": 4}, "test": {"a": 2, "b": 3}}
    assert names(found, "val") == [*many("val/a", 3), *many("val/b", 4)]
    assert found.splits["val"].labels.tolist() == [0] * 3 + [1] * 4
    assert found.splits["val"].labels.dtype == torch.int64
    assert found.notes == []


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_names_of_the_validation_folder(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 2), *many("train/b", 2), *many(f"{name}/a", 1), *many(f"{name}/b", 1))
    assert names(open_data(tmp_path), "val") == [f"{name}/a/000.jpg", f"{name}/b/000.jpg"]


def test_two_validation_folders_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val", "validation"):
        touch(tmp_path, *many(f"{split}/a", 2), *many(f"{split}/b", 2))
    assert says(problem(tmp_path), tmp_path, "both", "val", "validation")


def test_validation_is_taken_from_train_and_test_is_never_invented(tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 10), *many("train/b", 3))
    found = open_data(tmp_path, seed=1)
    assert found.counts() == {"train": {"a": 8, "b": 2}, "val": {"a": 2, "b": 1}}
    assert sorted(names(found, "train") + names(found, "val")) == [*many("train/a", 10), *many("train/b", 3)]


def test_a_given_test_folder_stays_whole(tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 10), *many("train/b", 10), *many("test/a", 4), *many("test/b", 4))
    assert open_data(tmp_path).counts() == {"train": {"a": 8, "b": 8}, "val": {"a": 2, "b": 2}, "test": {"a": 4, "b": 4}}


def test_a_bare_folder_is_split_in_three(tmp_path: Path) -> None:
    touch(tmp_path, *many("a", 25), *many("b", 3))
    assert open_data(tmp_path).counts() == {"train": {"a": 16, "b": 1}, "val": {"a": 4, "b": 1}, "test": {"a": 5, "b": 1}}


def test_no_seed_trains_on_the_test_pictures_of_another(tmp_path: Path) -> None:
    """Seeds that choose among settings must not have seen what the final runs are tested on."""
    touch(tmp_path, *many("a", 40), *many("b", 13))
    found = [open_data(tmp_path, seed=seed) for seed in (0, 1, 1000)]
    tests = [names(data, "test") for data in found]
    assert tests[0] == tests[1] == tests[2] and len(tests[0]) == 8 + 3
    assert all(not {*names(data, "train"), *names(data, "val")} & {*tests[0]} for data in found)
    assert names(found[0], "val") != names(found[1], "val")


def test_the_seed_decides_the_test_split_by_the_rules_of_0_1(tmp_path: Path) -> None:
    """Literal: run folders of 0.1 go on with the pictures that they began with."""
    touch(tmp_path, *many("a", 6), *many("b", 5))
    old = open_data(tmp_path, seed=3, defaults="0.1")
    assert (names(old, "test"), names(old, "val")) == OLD_BARE
    assert open_data(tmp_path, seed=3).to_json()["files"] != old.to_json()["files"]


OLD_BARE = (["a/004.jpg", "b/001.jpg"], ["a/001.jpg", "b/004.jpg"])
LITERAL = {
    "train": ["train/a/001.jpg", "train/a/009.jpg", "train/a/010.jpg", "train/a/011.jpg", "train/ü/000.PNG", "train/ü/002.PNG",
 "train/ü/003.PNG", "train/ü/004.PNG"],
    "val": ["train/a/003.jpg", "train/ü/001.PNG"],
}  # fmt: skip
LITERAL_0_1 = {
    "train": ["train/a/000.jpg", "train/a/001.jpg", "train/a/009.jpg", "train/a/010.jpg", "train/ü/000.PNG", "train/ü/001.PNG",
 "train/ü/003.PNG", "train/ü/004.PNG"],
    "val": ["train/a/011.jpg", "train/ü/002.PNG"],
}  # fmt: skip
LITERAL_RANK = "58b9c1fdaae2328cbb93f5f5c3cc6fd9"


def test_a_choice_is_the_same_on_every_platform(tmp_path: Path) -> None:
    """Literal: a change here changes every seeded split and subset that anyone has made."""
    touch(tmp_path, *many("train/a", 12), *many("train/ü", 5, ".PNG"))
    old = open_data(tmp_path, seed=7, per_class=5, defaults="0.1")
    assert {split: names(old, split) for split in old.splits} == LITERAL_0_1
    new = open_data(tmp_path, seed=7, per_class=4)
    assert {split: names(new, split) for split in new.splits} == LITERAL
    assert split_key(7, "val", "train/a/000.jpg").hex() == LITERAL_RANK


def test_both_spellings_of_an_accent_rank_alike() -> None:
    one, two = (unicodedata.normalize(form, "müsli/é.jpg") for form in ("NFC", "NFD"))
    assert one != two
    assert split_key(0, "val", one) == split_key(0, "val", two)


def test_purposes_and_seeds_draw_independently() -> None:
    def top(seed: int, purpose: str) -> set[str]:
        return set(sorted(many("a", 400), key=lambda name: split_key(seed, purpose, name))[:200])

    for other in (top(0, "test"), top(1, "val")):
        assert 70 < len(top(0, "val") & other) < 130


@given(
    counts=st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(3, 40), min_size=2, max_size=4),
    fractions=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    seed=st.integers(0, 2**40),
    bare=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_splits_are_disjoint_complete_and_stratified(counts: dict[str, int], fractions: tuple[float, float], seed: int, bare: bool) -> None:
    root = Path("/data")
    pools = {name: [root / file for file in many(name, count)] for name, count in counts.items()}
    findings = Findings(root)
    rules = SplitRules(root, seed, val_fraction=fractions[0], test_fraction=fractions[1], per_class=None)
    chosen = rules.split({"train": pools}, bare, findings)
    assert findings.problems == []
    assert chosen.keys() == {"train", "val", "test"} - (set() if bare else {"test"})
    for name, pool in pools.items():
        parts = [chosen[split][name] for split in chosen]
        assert sorted(path for part in parts for path in part) == pool
        assert sum(map(len, parts)) == len(pool)
        assert all(parts)
        left = len(pool)
        if bare:
            assert abs(len(chosen["test"][name]) - fractions[1] * left) <= 2
            left -= len(chosen["test"][name])
        assert abs(len(chosen["val"][name]) - fractions[0] * left) <= 1


@given(small=st.integers(1, 25), large=st.integers(1, 25), share=st.floats(0.01, 0.2), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_subsets_are_exact_and_nested_and_validation_stands_beside_them(small: int, large: int, share: float, seed: int) -> None:
    small, large = sorted((small, large))
    pools = pool_of(30)

    def subset(count: int) -> dict[str, Found]:
        findings = Findings(Path("/data"))
        chosen = SplitRules(Path("/data"), seed, share, 0.2, count).split({"train": pools}, False, findings)
        assert not findings.problems
        return chosen

    few, more = subset(small), subset(large)
    for name in pools:
        assert len(few["train"][name]) == small and len(more["train"][name]) == large
        assert {*few["train"][name]} <= {*more["train"][name]}
        for chosen, size in ((few, small), (more, large)):
            assert len(chosen["val"][name]) == max(1, round(share * size))
            assert not {*chosen["train"][name]} & {*chosen["val"][name]}


@given(small=st.integers(2, 30), large=st.integers(2, 30), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_by_the_rules_of_0_1_a_subset_holds_its_validation(small: int, large: int, seed: int) -> None:
    small, large = sorted((small, large))
    pools = pool_of(30)

    def subset(count: int) -> dict[str, set[Picture]]:
        findings = Findings(Path("/data"))
        chosen = SplitRules(Path("/data"), seed, 0.2, 0.2, count, defaults="0.1").split({"train": pools}, False, findings)
        assert not findings.problems
        return {name: {*chosen["train"][name], *chosen["val"][name]} for name in pools}

    for name in pools:
        assert len(subset(small)[name]) == small and len(subset(large)[name]) == large
        assert subset(small)[name] <= subset(large)[name]


def pool_of(count: int) -> Found:
    return {name: [Path("/data") / file for file in many(f"train/{name}", count)] for name in "ab"}


@given(fraction=st.floats(0.01, 1.0), share=st.floats(0.05, 0.5), count=st.integers(2, 60), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_share_is_trained_on_whole_where_enough_is_left_to_validate(fraction: float, share: float, count: int, seed: int) -> None:
    findings = Findings(Path("/data"))
    chosen = SplitRules(Path("/data"), seed, share, 0.2, fraction=fraction).split({"train": pool_of(count)}, False, findings)
    train, val = ({*chosen[split]["a"]} for split in ("train", "val"))
    wanted = max(1, round(fraction * count))
    assert not findings.problems and not train & val and train and val
    beside = max(1, round(share * wanted))
    if wanted + beside <= count:
        assert (len(train), len(val)) == (wanted, beside)
    else:
        assert len(train | val) == wanted and abs(len(val) - share * wanted) <= 1


def test_a_choice_does_not_depend_on_the_other_pictures(tmp_path: Path) -> None:
    """Taking a picture away moves no other between validation and training, apart from the one that fills its place."""
    whole = open_data(touch(tmp_path / "x", *many("train/a", 50), *many("train/b", 2)), seed=3)
    gone = names(whole, "train", 0)[5]
    fewer = [name for name in many("train/a", 50) if name != gone]
    part = open_data(touch(tmp_path / "y", *fewer, *many("train/b", 9), *many("train/c", 4)), seed=3)
    assert names(part, "val", 0) == names(whole, "val", 0)
    assert names(part, "train", 0) == [name for name in names(whole, "train", 0) if name != gone]


def test_per_class_leaves_given_splits_alone(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        touch(tmp_path, *many(f"{split}/a", 6), *many(f"{split}/b", 6))
    found = open_data(tmp_path, per_class=1)
    assert found.counts() == {"train": {"a": 1, "b": 1}, "val": {"a": 6, "b": 6}, "test": {"a": 6, "b": 6}}


def test_a_subset_larger_than_a_class_names_each_such_class(tmp_path: Path) -> None:
    text = problem(touch(tmp_path, *many("train/a", 4), *many("train/b", 9), *many("train/c", 3)), per_class=5)
    assert says(text, "class a", "4 training pictures", "--per-class 5", "at most 3")
    assert says(text, "class c", "3 training pictures", "--per-class 5", "at most 2")
    assert "class b" not in text


def test_the_largest_subset_that_a_message_names_is_possible_and_one_more_is_not(tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 23), *many("train/b", 40))
    assert says(problem(tmp_path, per_class=23), "class a", "23 training pictures", "at most 19")
    assert open_data(tmp_path, per_class=19).counts() == {"train": {"a": 19, "b": 19}, "val": {"a": 4, "b": 4}}
    assert says(problem(tmp_path, per_class=20), "class a", 24, "at most 19")


def test_a_bare_folders_subset_is_counted_after_its_test_split(tmp_path: Path) -> None:
    touch(tmp_path, *many("a", 10), *many("b", 10))
    assert open_data(tmp_path, per_class=7).counts() == dict(
        zip(("train", "val", "test"), ({"a": n, "b": n} for n in (7, 1, 2)), strict=True)
    )
    assert says(problem(tmp_path, per_class=8), "class a", "8 training pictures", "--per-class 8")
    assert open_data(tmp_path, per_class=8, defaults="0.1").counts()["train"] == {"a": 6, "b": 6}


def test_one_picture_a_class_can_be_trained_on(tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 3), *many("train/b", 3))
    assert open_data(tmp_path, per_class=1).counts() == {"train": {"a": 1, "b": 1}, "val": {"a": 1, "b": 1}}
    assert says(problem(tmp_path, per_class=1, defaults="0.1"), "--per-class 2")


def test_without_validation_all_is_trained_on(tmp_path: Path) -> None:
    """The pictures of the last run hold those of the runs that chose, and a subset is the same with validation and without."""
    touch(tmp_path, *many("train/a", 10), *many("train/b", 3))
    whole = open_data(tmp_path, val_fraction=0.0)
    assert whole.counts() == {"train": {"a": 10, "b": 3}}
    assert open_data(tmp_path, val_fraction=0.0, per_class=3).counts() == {"train": {"a": 3, "b": 3}}
    subsets = [names(open_data(tmp_path, val_fraction=share, per_class=2), "train") for share in (0.0, 0.2)]
    assert subsets[0] == subsets[1]
    touch(tmp_path, *many("val/a", 2), *many("val/b", 2))
    assert open_data(tmp_path, val_fraction=0.0).counts()["val"] == {"a": 2, "b": 2}


@pytest.mark.parametrize(("prefix", "count", "need"), [("", 2, 3), ("train/", 1, 2)])
def test_a_class_too_small_to_split_is_named(prefix: str, count: int, need: int, tmp_path: Path) -> None:
    touch(tmp_path, *many(f"{prefix}a", 9), *many(f"{prefix}b", count))
    assert says(problem(tmp_path), "class b", count, f"at least {need}")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"val_fraction": -0.1}, ("val_fraction", "at least 0", "-0.1")),
        ({"val_fraction": 1.0}, ("val_fraction", "below 1", "1.0")),
        ({"test_fraction": 1.0}, ("test_fraction", "0 and 1", "1.0")),
        ({"val_fraction": float("nan")}, ("val_fraction", "below 1", "nan")),
        ({"per_class": 0}, ("per_class", "at least 1", "0")),
    ],
)
def test_wrong_shares_are_told(options: dict[str, float], parts: tuple[str, ...], tmp_path: Path) -> None:
    assert says(problem(tmp_path, **options), *parts)


def test_every_fault_of_one_folder_is_told_at_once(tmp_path: Path) -> None:
    touch(
        tmp_path, *many("train/a", 3), *many("train/b", 3), *many("val/a", 2), *many("val/ghost", 2), *many("test/a", 1), *many("test/b", 1)
    )
    touch(tmp_path, "train/loose.jpg", "train/a/clip.mp4", "train/a/noending", "train/b/raw.heic", *many("valid/a", 1), *many("valid/b", 1))
    (tmp_path / "train/hollow").mkdir()
    (tmp_path / "train/b/gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "train/b/pipe.jpg")
    touch(tmp_path, *many("Testing/a", 1))
    text = problem(tmp_path)
    for parts in (
        (tmp_path, "both", "val", "valid"),
        (tmp_path, "class b", "missing from val"),
        (tmp_path, "class ghost", "missing from train"),
        (tmp_path, "class hollow", "missing from test"),
        (tmp_path / "train/hollow", "empty"),
        (tmp_path / "train/loose.jpg", "outside"),
        (tmp_path / "train/a/clip.mp4", "ending", "(.mp4)"),
        (tmp_path / "train/a/noending", "ending", "(none)"),
        (tmp_path / "train/b/raw.heic", "ending", "(.heic)"),
        (tmp_path / "train/b/gone.jpg", "link"),
        (tmp_path / "train/b/pipe.jpg", "ordinary"),
        (tmp_path / "Testing", "train", "val", "test", "class"),
    ):
        assert says(text, *parts), parts
    assert says(text.splitlines()[0], tmp_path, "13 problems")
    assert len(text.splitlines()) == 14


def test_a_long_list_is_cut_but_counted_and_keeps_the_classes_faults_first(tmp_path: Path) -> None:
    lines = problem(touch(tmp_path, *many("train/a", 3), *many("train/b", 70, ".xyz"), *many("val/a", 1))).splitlines()
    assert says(lines[0], tmp_path, "72 problems")
    assert says(lines[1], tmp_path, "class b", "missing from val")
    assert len(lines) == 52
    assert lines[-1] == "  and 22 more"


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ([], ("0 class folders", "at least 2", "FOLDER/CLASS/picture.jpg")),
        (many("cats", 3), ("1 class folder", "cats", "at least 2")),
        ([*many("all/cats", 3), *many("all/dogs", 3)], ("1 class folder", "all", "{root}/all")),
        (["a.jpg", "b.jpg"], ("{root}", "no class folders", "a.jpg, b.jpg")),
        ([*many("val/a", 3), *many("val/b", 3)], ("{root}/val", "without", "train")),
        ([*many("Train/a", 3), *many("Test/a", 3)], ("{root}/Train", "train", "val", "test", "class")),
        ([*many("train", 3), *many("car", 3)], ("{root}/train", "no class folders", "000.jpg, 001.jpg, 002.jpg")),
        ([*many("a", 3), *many("b", 3), "c.png"], ("{root}/c.png", "outside")),
    ],
)
def test_layouts_that_are_none(files: list[str], parts: tuple[str, ...], tmp_path: Path) -> None:
    assert says(problem(touch(tmp_path, *files)), *(part.format(root=tmp_path) for part in parts))


@pytest.mark.parametrize(("made", "parts"), [(False, ("exist",)), (True, ("file", ".csv", ".tsv", ".parquet"))])
def test_no_folder(made: bool, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "photos"
    if made:
        path.touch()
    assert each_says([problem(path)], (path, *parts, "FOLDER/CLASS/picture.jpg", "FOLDER/train/CLASS/picture.jpg", "val", "test"))


def test_hidden_and_system_entries_are_left_out_and_noted(tmp_path: Path) -> None:
    for split in ("train", "val"):
        touch(tmp_path, *many(f"{split}/a", 3), *many(f"{split}/b", 3))
    touch(
        tmp_path, "train/.ipynb_checkpoints/x.jpg", "train/__MACOSX/a/x.jpg", "train/a/.DS_Store", "train/a/Thumbs.db", "train/b/.x/x.jpg"
    )
    touch(tmp_path, ".git/x.jpg", "desktop.ini", "train/b/desktop.ini", *(f"val/a/._{index}.jpg" for index in range(9)))
    found = open_data(tmp_path)
    assert found.counts() == {"train": {"a": 3, "b": 3}, "val": {"a": 3, "b": 3}}
    assert each_says(
        found.notes,
        (tmp_path, "hidden", ".git, desktop.ini"),
        (tmp_path / "train", "hidden", ".ipynb_checkpoints, __MACOSX"),
        (tmp_path / "train/a", "hidden", ".DS_Store, Thumbs.db"),
        (tmp_path / "train/b", "hidden", ".x, desktop.ini"),
        (tmp_path / "val/a", "hidden", "._0.jpg, ._1.jpg, ._2.jpg, ._3.jpg, ._4.jpg", "4 more"),
    )


def test_texts_and_neighbours_are_left_out_and_noted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *many("train/a", 3),
        *many("train/b", 3),
        "train/a/README",
        "train/a/labels.csv",
        "train/list.txt",
        "notes/x.jpg",
        "about.md",
    )
    assert each_says(
        open_data(tmp_path).notes,
        (tmp_path, "beside", "about.md, notes"),
        (tmp_path / "train", "not pictures", "list.txt"),
        (tmp_path / "train/a", "documents", "README, labels.csv"),
    )


def test_folders_further_down_count_and_are_noted(tmp_path: Path) -> None:
    found = open_data(touch(tmp_path, *many("a", 3), *many("a/deep/er", 4), *many("b", 3)))
    assert sum(found.counts()[split]["a"] for split in found.splits) == 7
    assert each_says(found.notes, (tmp_path / "a", "4 pictures", "further"))


def test_links_never_count_a_picture_twice_or_under_another_label(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *many("train/a", 3), *many("train/b", 3), *many("val/a", 1), *many("val/b", 1))
    outside = touch(tmp_path / "outside", "000.jpg", "more/001.jpg")
    (outside / "again").symlink_to(outside)
    (root / "train/a/up").symlink_to(root)
    (root / "train/a/beside").symlink_to(root / "train/b")
    (root / "train/b/more").symlink_to(outside)
    (root / "train/a/003.jpg").symlink_to(outside / "000.jpg")
    found = open_data(root)
    assert names(found, "train") == [*many("train/a", 4), *many("train/b", 3), "train/b/more/000.jpg", "train/b/more/more/001.jpg"]
    assert says("\n".join(found.notes), root / "train/a", "links", "beside, up")
    assert says("\n".join(found.notes), root / "train/b", "links", "more/again")


def test_a_class_may_be_a_link_but_not_to_itself_or_another_class(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *many("a", 3), *many("b", 3))
    (root / "c").symlink_to(touch(tmp_path / "elsewhere", *many("c", 3)) / "c")
    assert open_data(root).classes == ["a", "b", "c"]
    (root / "d").symlink_to(root / "a")
    (root / "e").symlink_to(root)
    text = problem(root)
    assert says(text, root / "d", "same", "class a")
    assert says(text, root / "e", "link")


def test_names_of_any_script_length_and_case(tmp_path: Path) -> None:
    classes = sorted(["Äpfel", "リンゴ", "z" * 200, "cat", "Cat", "1", "with space", "a.b"])
    touch(tmp_path, *(file for name in classes for file in [*many(name, 3), f"{name}/{'長' * 80}.jpg"]))
    found = open_data(tmp_path)
    assert found.classes == classes
    assert all(
        Path(name).parent.name == classes[label] for split in found.splits for label in range(8) for name in names(found, split, label)
    )
    assert json.loads(json.dumps(found.to_json(), ensure_ascii=False)) == found.to_json()


def test_a_name_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    touch(tmp_path, *many("a", 3), *many("b", 3))
    open(os.fsencode(tmp_path) + b"/a/\xff.jpg", "w").close()
    assert says(problem(tmp_path), f"{tmp_path}/a/\\udcff.jpg", "UTF-8")


@pytest.mark.parametrize("name", ["naïve", "犬", "🐶"])
def test_a_name_in_utf8_that_python_takes_for_another_encoding_is_told_so(name: str, tmp_path: Path) -> None:
    """What a name looks like where LC_ALL is C and Python's UTF-8 mode is off."""
    assert not not_text(name)
    assert "PYTHONUTF8=1" in not_text(name.encode().decode("ascii", "surrogateescape"))
    assert "rename" in not_text(os.fsdecode(b"\xff"))


def test_labels_follow_trains_names_whatever_the_order_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *many("train/b", 4), *many("train/a", 4), *many("test/b", 2), *many("test/a", 2))
    before = open_data(tmp_path)
    scandir, listdir = os.scandir, os.listdir

    class Backwards:
        def __init__(self, path: str = ".") -> None:
            with scandir(path) as entries:
                self.entries = reversed(list(entries))

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return self.entries

        def __next__(self) -> os.DirEntry[str]:
            return next(self.entries)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.setattr(os, "listdir", lambda path: listdir(path)[::-1])
    assert open_data(tmp_path).to_json() == before.to_json()


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *many("a", 3), *many("a/locked", 3), *many("b", 3))
    scandir, listdir = os.scandir, os.listdir
    locked = str(tmp_path / "a/locked")

    def refuse(path: object, real: object) -> object:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", locked)
        return real(path)  # type: ignore[operator]

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(path, scandir))
    monkeypatch.setattr(os, "listdir", lambda path=".": refuse(path, listdir))
    assert says(problem(tmp_path), locked, "opened")
    locked = str(tmp_path)
    assert each_says([problem(tmp_path)], (tmp_path, "opened"))


def test_json_is_enough_to_make_the_splits_again(tmp_path: Path) -> None:
    touch(tmp_path, *many("train/a", 9), *many("train/b", 9))
    found = open_data(tmp_path, seed=4, val_fraction=0.3, per_class=6)
    said = json.loads(json.dumps(found.to_json()))
    assert said["classes"] == ["a", "b"]
    assert said["counts"] == {"train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}}
    assert said["files"] == {"train": names(found, "train"), "val": names(found, "val")}
    again = open_data(tmp_path, **{key: said[key] for key in ("seed", "val_fraction", "test_fraction", "per_class")})
    assert again.to_json() == said


def test_find_images(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/10.png", "a.jpg", "b/c/1.webp", "b/.hidden.jpg", ".x/1.jpg", "b/read.me", "odd.bin", "__MACOSX/1.jpg")
    (tmp_path / "b/loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a.jpg", "b/10.png", "b/2.JPG", "b/c/1.webp"]
    assert find_images([str(tmp_path / "odd.bin"), tmp_path / "b/c"]) == [tmp_path / "odd.bin", tmp_path / "b/c/1.webp"]


def test_find_images_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jpg.*exist"):
        find_images([tmp_path, tmp_path / "gone.jpg"])
    with pytest.raises(UserError, match=r"no pictures.*\.avif \.bmp"):
        find_images([tmp_path])
