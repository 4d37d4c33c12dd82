"""No group stands in two splits, classes are as even as groups allow, and what cannot be is told."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rekindle
from rekindle.cli import main
from rekindle.data import Dataset, TableImage, open_data
from rekindle.data.formats.columns import ColumnNames
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.open import survey
from rekindle.data.grouping import Part, allocate
from rekindle.data.splits import FoundData, SplitRules
from rekindle.errors import UserError
from rekindle.spec import RunSpec
from tests.toys import Notes

from .pictures import jpeg, listed
from .test_folders import touch

ROOT = Path("/data")
KINDS = "abc"
# Pictures of each class in each group: some span classes, some are large.
TABLES = st.lists(st.fixed_dictionaries({kind: st.integers(0, 12) for kind in KINDS}), min_size=1, max_size=14)


def found(table: list[dict[str, int]], split: str = "train") -> FoundData:
    parts: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    groups = {}
    for number, row in enumerate(table):
        for kind, count in row.items():
            for picture in (TableImage(f"{kind}{number}[{place}]", None, place) for place in range(count)):  # type: ignore[arg-type]
                parts[kind].append(picture)
                groups[picture] = f"group {number}"
    return FoundData(ROOT, {split: {kind: rows for kind, rows in parts.items() if rows}}, list(KINDS), Findings(ROOT), True, groups=groups)


def groups_of(dataset: Dataset, data: FoundData) -> dict[str, set[str]]:
    return {split: {data.groups[picture] for picture in part.paths} for split, part in dataset.splits.items()}


def divided(data: FoundData, **options: Any) -> Dataset | None:
    """The splits, or None where the groups leave nothing for one of them, which is refused."""
    rules = SplitRules(ROOT, **{"seed": 0, "val_fraction": 0.2, "test_fraction": 0.2, **options})
    try:
        return data.split(rules)
    except UserError as error:
        assert "groups" in str(error) or "no pictures to train on" in str(error)
        return None


@settings(deadline=None, max_examples=100)
@given(TABLES, st.integers(0, 3), st.booleans(), st.sampled_from([{}, {"fraction": 0.5}, {"val_fraction": 0.0}, {"fold": "1/2"}]))
def test_no_group_is_torn(table: list[dict[str, int]], seed: int, bare: bool, options: dict[str, Any]) -> None:
    data = found(table)
    data.bare = bare
    everything = Counter(picture for pictures in data.found["train"].values() for picture in pictures)
    dataset = divided(data, seed=seed, **options)
    if dataset is None:
        return
    places = groups_of(dataset, data)
    assert sum(map(len, places.values())) == len(set().union(*places.values())) and dataset.cautions == []
    pictures = Counter(picture for part in dataset.splits.values() for picture in part.paths)
    assert pictures <= everything and ("fraction" in options or pictures == everything)
    counts = dataset.counts()
    assert all(counts["train"][kind] for kind, pictures in data.found["train"].items() if pictures)
    told = " ".join(dataset.notes)
    for split in {"val", "test"} & counts.keys():
        missing = [kind for kind in data.found["train"] if not counts[split][kind]]
        assert (f"{split} has no pictures of {', '.join(missing)}:" in told) == bool(missing)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=12), min_size=2, max_size=3), st.integers(0, 3))
def test_groups_of_one_class_leave_a_class_in_as_many_splits_as_it_has_groups(sizes: list[list[int]], seed: int) -> None:
    table = [{kind: size} for kind, groups in zip(KINDS, sizes, strict=False) for size in groups]
    dataset = divided(found(table), seed=seed)
    if dataset is None:
        return
    for kind, groups in zip(KINDS, sizes, strict=False):
        there = [split for split in ("train", "test", "val") if dataset.counts()[split][kind]]
        assert there == ["train", "test", "val"][: len(groups)]


@settings(deadline=None, max_examples=40)
@given(st.integers(10, 60), st.integers(1, 6), st.integers(0, 5))
def test_small_groups_give_the_shares_that_pictures_alone_would(groups: int, size: int, seed: int) -> None:
    counts = divided(found([{"a": size, "b": size} for _ in range(groups)]), seed=seed)
    assert counts is not None
    for split, share in (("test", 0.2), ("val", 0.16), ("train", 0.64)):
        assert all(abs(count - share * groups * size) <= 1.5 * size for kind, count in counts.counts()[split].items() if kind != "c")


def test_a_group_with_half_of_a_class_stays_whole() -> None:
    dataset = divided(found([{"a": 50}, *[{"a": 5} for _ in range(10)], *[{"b": 5} for _ in range(20)]]))
    assert dataset is not None
    assert dataset.counts() == {"train": {"a": 65, "b": 65, "c": 0}, "val": {"a": 15, "b": 15, "c": 0}, "test": {"a": 20, "b": 20, "c": 0}}


@settings(deadline=None, max_examples=40)
@given(TABLES, st.lists(st.floats(0.05, 1), min_size=2, max_size=4))
def test_no_single_move_is_better(table: list[dict[str, int]], shares: list[float]) -> None:
    """Where each part has what it needs, the squared distances from the shares have no neighbour that is nearer."""
    parts = [Part(share / sum(shares), ()) for share in shares]
    groups = [{kind: count for kind, count in row.items() if count} for row in table if any(row.values())]
    counted = [{**group, "all": sum(group.values())} for group in groups]
    totals = Counter({kind: sum(row.get(kind, 0) for row in counted) for kind in (*KINDS, "all")})

    def away(places: list[int]) -> float:
        held = [Counter[str]() for _ in parts]
        for place, group in zip(places, counted, strict=True):
            held[place].update(group)
        return sum(
            (mine[kind] - part.share * total) ** 2 / (part.share * total**2)
            for mine, part in zip(held, parts, strict=True) for kind, total in totals.items() if total
        )  # fmt: skip

    places = allocate(groups, parts)
    moved = [[*places[:row], place, *places[row + 1 :]] for row in range(len(groups)) for place in range(len(parts))]
    assert away(places) <= min(map(away, moved), default=0.0) + 1e-9


def test_the_test_split_is_the_same_for_every_seed_and_share_of_validation() -> None:
    tests, vals = [], []
    for options in ({}, {"seed": 1}, {"seed": 2, "val_fraction": 0.1}, {"seed": 3, "val_fraction": 0.0}, {"seed": 4, "fold": "2/3"}):
        dataset = divided(data := found([{"a": 3, "b": 4} for _ in range(12)]), **options)
        assert dataset is not None
        tests.append(groups_of(dataset, data)["test"])
        vals.append(frozenset(groups_of(dataset, data).get("val", set())))
    assert all(one == tests[0] for one in tests) and len(set(vals)) == len(vals)


def test_subsets_are_nested_and_take_nothing_from_validation() -> None:
    """What is trained on depends on no larger subset; validation is a share of it, of groups of its own."""
    table = [{"a": 5, "b": 5} for _ in range(12)]
    trained = []
    for count in (1, 4, 20):
        dataset = divided(found(table), per_class=count)
        assert dataset is not None
        assert dataset.counts()["train"]["a"] == count and dataset.counts()["val"]["a"] == max(1, round(0.2 * count))
        trained.append({picture.name for picture in dataset.splits["train"].paths if isinstance(picture, TableImage)})
    assert trained[0] < trained[1] < trained[2]
    with pytest.raises(UserError, match="class a has 38 training pictures beside those that are held out, --per-class 90 asks for more"):
        found([{"a": 2, "b": 2} for _ in range(30)]).split(SplitRules(ROOT, 0, 0.2, 0.2, per_class=90))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(3, 30), min_size=2, max_size=3), st.integers(2, 6), st.booleans(), st.integers(0, 2))
def test_folds_hold_each_picture_out_once(counts: list[int], folds: int, grouped: bool, seed: int) -> None:
    """In pictures or groups of one, the folds' sizes and those of their classes differ by one at most."""
    table = [{kind: 1} for kind, count in zip(KINDS, counts, strict=False) for _ in range(count)]
    held: Counter[Any] = Counter()
    sizes, kinds = set(), {kind: set[int]() for kind in KINDS}
    for number in range(1, folds + 1):
        data = found(table)
        data.bare, data.groups = False, data.groups if grouped else {}
        dataset = divided(data, fold=f"{number}/{folds}", seed=seed)
        assert dataset is not None
        assert not set(dataset.splits["train"].paths) & set(dataset.splits["val"].paths)
        assert len(dataset.splits["train"].paths) + len(dataset.splits["val"].paths) == sum(counts)
        held.update(dataset.splits["val"].paths)
        sizes.add(len(dataset.splits["val"].paths))
        for kind, count in dataset.counts()["val"].items():
            kinds[kind].add(count)
    assert len(held) == sum(counts) and set(held.values()) == {1}
    assert grouped or max(sizes) - min(sizes) <= 1
    assert all(max(numbers) - min(numbers) <= 1 for numbers in kinds.values())


def test_what_folds_refuse() -> None:
    with pytest.raises(UserError, match="class c has 2 of the at least 3 pictures that its splits need"):
        data = found([{"a": 9, "b": 9, "c": 2}])
        data.groups = {}
        data.split(SplitRules(ROOT, 0, 0.2, 0.2, fold="1/3"))
    with pytest.raises(UserError, match="5 folds need at least as many groups, and there are 4"):
        data = found([{"a": 9, "b": 9}] * 4)
        data.bare = False
        data.split(SplitRules(ROOT, 0, 0.2, 0.2, fold="1/5"))
    with pytest.raises(UserError, match="class c has 9 pictures, all in one of the 2 folds"):
        data = found([{"a": 9, "b": 9}, {"a": 9, "b": 9}, {"c": 9}])
        data.bare = False
        data.split(SplitRules(ROOT, 0, 0.2, 0.2, fold="2/2"))
    with pytest.raises(UserError, match="--fold must be .*such as .2/5.*found '6/5'"):
        RunSpec("x", fold="6/5")
    with pytest.raises(UserError, match="--val-fraction 0.3 has no meaning"):
        RunSpec("x", fold="1/5", val_fraction=0.3)


PATIENTS = "".join(
    f"{kind}{number}.jpg,{kind},p{number // 2},{split}\n" for kind in "ab" for number, split in enumerate(["train"] * 5 + ["test"] * 3)
)


def table(folder: Path, text: str = "image,label,patient,split\n" + PATIENTS) -> Path:
    for number, line in enumerate(text.splitlines()[1:]):
        (folder / line.partition(",")[0]).write_bytes(jpeg(number))
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_a_column_of_a_table(tmp_path: Path) -> None:
    import pandas as pd

    rows = [line.split(",")[:3] for line in PATIENTS.splitlines()]
    path = table(tmp_path, "image,label,patient\n" + "".join(",".join(row) + "\n" for row in rows))
    frame = pd.DataFrame(rows, columns=["image", "label", "patient"])
    frame.to_parquet(tmp_path / "labels.parquet")
    frame.to_json(tmp_path / "labels.jsonl", orient="records", lines=True)
    splits = [{split: listed(open_data(file, group_column="patient"), split) for split in ("train", "val", "test")}
              for file in (path, tmp_path / "labels.parquet", tmp_path / "labels.jsonl")]  # fmt: skip
    patients = {image: patient for image, _, patient in rows}
    assert splits[0] == splits[1] == splits[2]
    assert sorted(patient for part in splits[0].values() for patient in {patients[name] for name in part}) == ["p0", "p1", "p2", "p3"]
    assert open_data(path, group_column="patient").to_json()["group_column"] == "patient"
    by_name = open_data(path, group_pattern="[0-9]")
    assert by_name.to_json()["group_pattern"] == "[0-9]"


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"image": [jpeg(number) for number in range(12)], "label": ["a", "b"] * 6, "camera": [number // 3 for number in range(12)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string"), "camera": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    found = open_data(tmp_path / "saved", group_column="camera")
    cameras = {
        split: {picture.row // 3 for picture in part.paths if isinstance(picture, TableImage)} for split, part in found.splits.items()
    }
    assert sum(map(len, cameras.values())) == 4 and len(set().union(*cameras.values())) == 4


def test_names_of_files_in_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/patient{number}_{view}.jpg" for kind in "ab" for number in range(8) for view in "lr"))
    found = open_data(tmp_path, group_pattern=r"patient(\d+)_")
    patients = {split: {name.rpartition("_")[0].rpartition("/")[2] for name in listed(found, split)} for split in found.splits}
    assert sum(map(len, patients.values())) == 8
    with pytest.raises(UserError, match=r"16 of 32 names hold no group by --group-pattern '_l': a/patient0_r.jpg"):
        open_data(tmp_path, group_pattern="_l")
    with pytest.raises(UserError, match="--group-pattern must be a regular expression with at most one pair of brackets"):
        RunSpec("x", group_pattern="(a)(b)")
    with pytest.raises(UserError, match="both name groups; give one of them"):
        RunSpec("x", group_pattern="a", group_column="b")


def test_faults_of_groups(tmp_path: Path) -> None:
    text = "image,label,patient\n1.jpg,a,p\n2.jpg,a,\n3.jpg,b,q\n1.jpg,a,q\n"
    with pytest.raises(UserError) as refused:
        open_data(table(tmp_path, text), group_column="patient")
    assert "labels.csv row 3: no group" in str(refused.value)
    assert "labels.csv row 5: 1.jpg is of group q here and of p in labels.csv row 2" in str(refused.value)
    for column, told in (("label", "cannot be the groups"), ("camera", "has no column 'camera'")):
        with pytest.raises(UserError, match=told):
            survey(tmp_path / "labels.csv", ColumnNames(group=column))
    with pytest.raises(UserError, match="no table, so --group-column has no meaning"):
        open_data(tmp_path, group_column="patient")


def test_splits_that_tear_groups_are_told_loudly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path)
    told = "1 of 4 groups stands in several splits (such as p2, in train and test), with 2 of the 6 pictures"
    assert main(["data", "check", str(path), "--group-column", "patient"]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    notes: list[str] = []
    run = rekindle.fit(
        path, group_column="patient", model="tiny", image_size=32, epochs=1, lr=0.01, out=tmp_path / "runs", listener=Notes(notes)
    )
    assert sum(note.startswith("caution: 1 of 4 groups stands in several splits (such as p2, in ") for note in notes) == 2, (
        "at both ends of the run"
    )
    assert "p2" in run.result["cautions"][0]
