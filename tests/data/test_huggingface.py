"""Hugging Face datasets, saved locally: no test needs the hub."""

import pickle
from pathlib import Path

import pytest

from rekindle.data import open_data
from rekindle.data.cache.decode import Undecodable, decode, read
from rekindle.errors import UserError

from .pictures import jpeg, listed

datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is an extra: pip install 'rekindle[datasets]'")
NAMES = ["zebra", "ant"]


def made(count: int, start: int = 0, image: str = "image", label: str = "label") -> "datasets.Dataset":
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=NAMES), "id": datasets.Value("int64")})
    rows = {
        image: [{"bytes": jpeg(start + number), "path": None} for number in range(count)],
        label: [number % 2 for number in range(count)], "id": list(range(count)),
    }  # fmt: skip
    return datasets.Dataset.from_dict(rows, features=features)


def test_splits_classes_and_bytes(tmp_path: Path) -> None:
    parts = {"train": made(10), "validation": made(4, 50), "test": made(6, 100), "unsupervised": made(2, 200)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    found = open_data(tmp_path / "saved")
    assert found.classes == NAMES
    assert found.counts() == {"train": {"zebra": 5, "ant": 5}, "val": {"zebra": 2, "ant": 2}, "test": {"zebra": 3, "ant": 3}}
    assert found.notes == [f"{tmp_path / 'saved'}: left out, other splits: unsupervised."]
    assert [cell.name for cell in found.splits["val"].paths] == ["val[0]", "val[1]", "val[2]", "val[3]"]
    cell = found.find("test[3]")
    assert read(cell) == jpeg(103) == pickle.loads(pickle.dumps(cell)).read()
    assert decode(cell, 36).shape == (36, 40, 3)
    assert listed(found, "test")["test[3]"] == "ant"
    assert {key: value for key, value in found.choices.items() if "column" in key} == {"image_column": "image", "label_column": "label"}


def test_prefix_and_a_lone_dataset_that_was_shuffled(tmp_path: Path) -> None:
    lone = made(12).shuffle(seed=1)
    lone.save_to_disk(str(tmp_path / "lone"))
    found = open_data(f"hf:{tmp_path / 'lone'}")
    assert {name: len(split.paths) for name, split in found.splits.items()} == {"train": 8, "val": 2, "test": 2}
    for split in found.splits.values():
        for cell, label in zip(split.paths, split.labels.tolist(), strict=True):
            assert read(cell) == jpeg(lone[cell.row]["id"]) and label == lone[cell.row]["label"]


def test_columns_are_found_by_their_features(tmp_path: Path) -> None:
    made(12, image="scan", label="kind").save_to_disk(str(tmp_path / "named"))
    assert open_data(tmp_path / "named").classes == NAMES
    two = made(12, label="fine").add_column("coarse", [0, 1] * 6).cast_column("coarse", datasets.ClassLabel(names=["x", "y"]))
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(
        UserError,
        match=r"has 2 columns that may hold the labels \(fine, coarse\); name one with --label-column; there are image, fine, id, coarse",
    ):
        open_data(tmp_path / "two")
    assert open_data(tmp_path / "two", label_column="coarse").classes == ["x", "y"]


def test_paths_inside_are_read_and_addresses_are_not(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(jpeg(1))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    paths = [str(tmp_path / "one.jpg")] * 6 + ["https://example.org/x.jpg"]
    rows = {"image": [{"bytes": None, "path": path} for path in paths], "label": ["a", "b"] * 3 + ["a"]}
    # Saving would put the files' bytes inside; some datasets on the hub hold paths alone.
    made_here = datasets.Dataset.from_dict(rows, features=features)
    from rekindle.data.formats.huggingface import ArrowColumn

    column = ArrowColumn(made_here.cast_column("image", datasets.Image(decode=False)), "image", tmp_path)
    assert column.read(2) == jpeg(1)
    with pytest.raises(OSError, match=r"it lies elsewhere \(https://example.org/x.jpg\); download it first"):
        column.read(6)


def test_an_empty_cell_is_named(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.Value("string")})
    rows = {"image": [jpeg(number) for number in range(7)] + [b""], "label": ["b", "a"] * 4}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    found = open_data(tmp_path / "saved")
    assert found.classes == ["a", "b"]
    with pytest.raises(Undecodable, match="the cell is empty"):
        read(found.find("train[7]"))


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.json").write_text("{")
    with pytest.raises(UserError, match="is no dataset that save_to_disk wrote"):
        open_data(tmp_path / "broken")
    datasets.DatasetDict({"test": made(4)}).save_to_disk(str(tmp_path / "test only"))
    with pytest.raises(UserError, match="has no split called train; its splits are test"):
        open_data(tmp_path / "test only")

    def offline(name: str, configuration: str | None) -> None:
        raise ConnectionError(f"Couldn't reach the hub for {name} ({configuration})\nand a long trace")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        UserError, match=r"^hf:owner/name:small cannot be loaded \(Couldn't reach the hub for owner/name \(small\)\); give hf:NAME"
    ):
        open_data("hf:owner/name:small")
