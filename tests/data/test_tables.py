"""Tables as data: columns found or named, labels in order, every fault with its row."""

import json
import pickle
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rekindle.data import Pixels, TableImage, open_data
from rekindle.data.cache.decode import Undecodable, decode, read
from rekindle.errors import UserError

from .pictures import jpeg, listed, write
from .test_folders import each_says, says


def table(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8", pictures: int = 8) -> Path:
    write(folder, pictures)
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def problem(path: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        open_data(path, **options)  # type: ignore[arg-type]
    return str(caught.value)


ROWS = [(f"{number}.jpg", "cat" if number % 2 else "dog") for number in range(8)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_line_ends_and_marks(separator: str, newline: str, encoding: str, tmp_path: Path) -> None:
    text = newline.join(separator.join(row) for row in [("image", "label"), *ROWS]) + newline
    found = open_data(table(tmp_path, text, encoding=encoding))
    assert found.classes == ["cat", "dog"] and found.notes == []
    assert {name: len(split.paths) for name, split in found.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert {**listed(found, "train"), **listed(found, "val"), **listed(found, "test")} == dict(ROWS)


def test_a_table_makes_the_splits_of_the_same_bare_folder(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write(tmp_path / label, 10)
    text = "path,class\n" + "".join(f"{label}/{number}.jpg,{label}\n" for label in ("dog", "cat") for number in range(10))
    (tmp_path / "labels.csv").write_text(text)
    as_table, as_folder = open_data(tmp_path / "labels.csv", seed=3), open_data(tmp_path, seed=3)
    for split in ("train", "val", "test"):
        assert listed(as_table, split) == listed(as_folder, split)


def test_splits_by_words(tmp_path: Path) -> None:
    words = ["train", "Training", "TRAIN", "train", "validation", "val", "test", "testing"]
    text = "file,split,category\n" + "".join(f"{name},{word},{label}\n" for (name, label), word in zip(ROWS, words, strict=True))
    found = open_data(table(tmp_path, text))
    assert {name: list(listed(found, name)) for name in found.splits} == {
        "train": ["1.jpg", "3.jpg", "0.jpg", "2.jpg"], "val": ["5.jpg", "4.jpg"], "test": ["7.jpg", "6.jpg"],
    }  # fmt: skip
    assert found.choices["split_column"] == "split" and found.choices["label_column"] == "category"


def test_all_faults_are_told_at_once_with_their_rows(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    text = (
        "image,label,split\n0.jpg,a,train\n1.jpg,b,tset\n2.jpg,,train\n0.jpg,b,train\n0.jpg,a,train\n../x.jpg,a,train\n9.jpg,a,train\n"
        "\n3.jpg,a,train,extra,more\n4.jpg,b,\n0.jpg,a,test\n,a,train\nfolder,a,train\n5.jpg,a,train\n6.jpg,b,train\n"
    )
    path = table(tmp_path, text)
    told = problem(path).splitlines()
    rows = [line.strip() for line in told if "labels.csv row" in line]
    assert [line.split(":")[0] for line in rows] == [f"labels.csv row {number}" for number in (10, 3, 4, 5, 7, 8, 11, 12, 13, 14)]
    assert each_says(
        rows[1:],
        ("labels.csv row 3", "'tset'", "train", "val", "test"),
        ("labels.csv row 4", "no label"),
        ("labels.csv row 5", "0.jpg", "b", "a", "labels.csv row 2"),
        ("labels.csv row 7", "../x.jpg", tmp_path, "absolute"),
        ("labels.csv row 8", "no file", "9.jpg"),
        ("labels.csv row 11", "no split", "train", "val", "test"),
        ("labels.csv row 12", "0.jpg", "test", "train", "labels.csv row 2"),
        ("labels.csv row 13", "no picture"),
        ("labels.csv row 14", "folder is a folder"),
    )


def test_a_row_that_stands_twice_is_counted_once(tmp_path: Path) -> None:
    text = "image,label\n" + "".join(f"{name},{label}\n" for name, label in ROWS) + "./0.jpg,dog\n"
    found = open_data(table(tmp_path, text))
    assert each_says(found.notes, ("labels.csv row 10", "left out", "0.jpg", "labels.csv row 2"))
    assert sum(len(split.paths) for split in found.splits.values()) == 8


def test_absolute_paths_outside_are_taken_and_noted(tmp_path: Path) -> None:
    write(tmp_path / "far", 8)
    text = "image,label\n" + "".join(f"{tmp_path / 'far' / name},{label}\n" for name, label in ROWS)
    found = open_data(table(tmp_path / "near", text))
    assert each_says(found.notes, (tmp_path / "near/labels.csv", "8 pictures", "outside", tmp_path / "near"))
    assert {Path(name).parent for name in listed(found, "train")} == {tmp_path / "far"}
    inside = open_data(table(tmp_path / "near", text.replace(str(tmp_path / "far"), str(tmp_path / "near"))))
    assert inside.notes == [] and "1.jpg" in {**listed(inside, "train"), **listed(inside, "val"), **listed(inside, "test")}


def test_backslashes_of_windows(tmp_path: Path) -> None:
    write(tmp_path / "a", 8)
    found = open_data(table(tmp_path, "image,label\n" + "".join(f"a\\{name},{label}\n" for name, label in ROWS)))
    assert all(name.startswith("a/") for name in listed(found, "train"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("empty", "header")),
        ("\n \n", ("empty", "header")),
        ("a,b,c\n1,2,3\n", ("pictures", "--image-column", "a, b, c")),
        ("image,x,y\n1,2,3\n", ("labels", "--label-column", "image, x, y")),
        ("image,label,class\n1,2,3\n", ("2 columns", "label, class", "--label-column")),
        ("0.jpg,cat\n1.jpg,dog\n", ("first row", "no header", "image,label")),
        ("image,label,label\n1,2,3\n", ("several columns", "'label'")),
        ('image,label\n0.jpg,cat\n1.jpg,"dog\n2.jpg,cat\n', ("quotation", "row 3")),
        ("image,label\n", ("0 classes", "at least 2")),
    ],
)
def test_tables_that_cannot_be_read(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    assert says(problem(table(tmp_path, text)), *parts)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    assert says(problem(table(tmp_path, "image,label\n0.jpg,Büro\n", encoding="latin-1")), "not UTF-8")


def test_columns_by_name(tmp_path: Path) -> None:
    text = "where,kind,label\n" + "".join(f"{name},{label},1\n" for name, label in ROWS)
    path = table(tmp_path, text)
    found = open_data(path, image_column="where", label_column="kind")
    assert found.classes == ["cat", "dog"]
    assert says(problem(path, image_column="where", label_column="Kind"), "'Kind'", "--label-column", "where, kind, label")
    assert says(problem(path, image_column="where", label_column="where"), "two", "pictures (where)", "labels (where)")
    write(tmp_path / "folder/a", 3)
    write(tmp_path / "folder/b", 3)
    assert says(problem(tmp_path / "folder", label_column="kind"), tmp_path / "folder", "no table", "--label-column")


def test_the_only_other_column_is_the_label(tmp_path: Path) -> None:
    assert open_data(table(tmp_path, "image,kind\n" + "".join(f"{name},{label}\n" for name, label in ROWS))).classes == ["cat", "dog"]


def test_numbers_are_classes_in_numeric_order(tmp_path: Path) -> None:
    text = "image,label\n" + "".join(f"{name},{10 if label == 'cat' else 9}\n" for name, label in ROWS)
    assert open_data(table(tmp_path, text)).classes == ["9", "10"]
    assert open_data(table(tmp_path, text.replace(",9\n", ",9b\n"))).classes == ["10", "9b"]


def parquet(path: Path, count: int = 12, metadata: dict[str, str] | None = None, group: int = 5, **columns: list[object]) -> Path:
    labels = columns.pop("label", [number % 2 for number in range(count)])
    content = pa.table({"image": pa.array([jpeg(number) for number in range(count)], pa.binary()), "label": labels, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content.replace_schema_metadata(metadata), path, row_group_size=group)
    return path


def test_cells_hold_the_bytes_of_their_rows(tmp_path: Path) -> None:
    found = open_data(parquet(tmp_path / "all.parquet", metadata={"classes": "cat,dog"}))
    assert found.classes == ["cat", "dog"]
    cells = [cell for split in found.splits.values() for cell in split.paths]
    assert len(cells) == 12
    for cell in cells:
        assert isinstance(cell, TableImage) and cell.name == f"all.parquet[{cell.row}]"
        assert read(cell) == jpeg(cell.row) == pickle.loads(pickle.dumps(cell)).read()
        assert decode(cell, 36).shape == (36, 40, 3)
        assert found.find(found.relative(cell)) == cell
    for split in found.splits.values():
        assert [cell.row for cell in split.paths] == sorted(cell.row for cell in split.paths)
        assert split.labels.tolist() == [cell.row % 2 for cell in split.paths]
    assert json.dumps(found.to_json())


def test_broken_cells_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    data: list[bytes | None] = [jpeg(number) for number in range(12)]
    data[3], data[7], data[8] = None, b"no picture", b""
    pq.write_table(pa.table({"image": pa.array(data, pa.binary()), "label": ["a", "b"] * 6}), path)
    found = open_data(path)
    with pytest.raises(UserError) as caught:
        Pixels.load([cell for split in found.splits.values() for cell in split.paths], 32)
    told = str(caught.value)
    assert says(told, "all.parquet[3]", "empty") and says(told, "all.parquet[7]", "not a picture") and says(told, "all.parquet[8]", "empty")
    with pytest.raises(Undecodable, match=r"\bempty\b"):
        decode(found.find("all.parquet[3]"), 32)


def test_a_folder_with_a_table_for_each_split(tmp_path: Path) -> None:
    for name, count in (("train-00000-of-00002", 6), ("train-00001-of-00002", 6), ("validation", 4), ("test", 2)):
        parquet(tmp_path / f"{name}.parquet", count, {"classes": '["dog", "cat, small"]'})
    found = open_data(tmp_path)
    assert found.classes == ["dog", "cat, small"]
    assert found.counts() == {"train": {"dog": 6, "cat, small": 6}, "val": {"dog": 2, "cat, small": 2}, "test": {"dog": 1, "cat, small": 1}}
    assert [cell.name for cell in found.splits["train"].paths][5:7] == [
        "train-00000-of-00002.parquet[5]",
        "train-00001-of-00002.parquet[0]",
    ]
    assert says(problem(tmp_path, split_column="x"), tmp_path, "--split-column x")


def test_pictures_and_names_as_hugging_face_writes_them(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (tmp_path / "beside.jpg").write_bytes(jpeg(99))
    cells = [{"bytes": jpeg(number), "path": None} for number in range(7)] + [{"bytes": None, "path": "beside.jpg"}]
    features = {"info": {"features": {"picture": {"_type": "Image"}, "fine": {"names": ["z", "a"], "_type": "ClassLabel"}}}}
    content = pa.table({"picture": pa.array(cells, kind), "fine": [0, 1] * 4, "note": ["x"] * 8})
    path = tmp_path / "data.parquet"
    pq.write_table(content.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    found = open_data(path)
    assert found.classes == ["z", "a"]
    assert read(found.find("data.parquet[7]")) == jpeg(99) and read(found.find("data.parquet[2]")) == jpeg(2)


def test_labels_beyond_the_names_and_missing_ones_are_told(tmp_path: Path) -> None:
    path = parquet(tmp_path / "all.parquet", metadata={"classes": "cat,dog"}, label=[0, 1] * 4 + [2, None, -1, 1])
    assert each_says(
        problem(path).splitlines()[1:],
        ("all.parquet[8]", "label 2", "0 to 1"),
        ("all.parquet[9]", "no label"),
        ("all.parquet[10]", "label -1", "no label"),
    )


def test_a_test_split_without_labels_is_left_out(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet")
    parquet(tmp_path / "test.parquet", 4, label=[-1] * 4)
    found = open_data(tmp_path)
    assert set(found.splits) == {"train", "val"}
    assert each_says(found.notes, (tmp_path, "left out", "labels", "4 pictures", "test"))


def test_classes_that_stand_in_one_split_alone(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", label=["a", "b"] * 6)
    parquet(tmp_path / "test.parquet", 4, label=["a", "c", "c", "a"])
    assert says(problem(tmp_path), tmp_path, "class c", "2 pictures", "none", "train")
    parquet(tmp_path / "test.parquet", 4, label=["a"] * 4)
    found = open_data(tmp_path)
    assert each_says(found.notes, (tmp_path, "test", "no pictures", "b")) and found.counts()["test"] == {"a": 4, "b": 0}


def test_parquet_of_paths_and_damaged_ones(tmp_path: Path) -> None:
    write(tmp_path, 8)
    frame = pd.DataFrame({"path": [name for name, _ in ROWS], "label": pd.Categorical([label for _, label in ROWS])})
    frame.to_parquet(tmp_path / "paths.parquet")
    assert open_data(tmp_path / "paths.parquet").classes == ["cat", "dog"]
    frame.assign(path="gone.jpg").to_parquet(tmp_path / "gone.parquet")
    assert says(problem(tmp_path / "gone.parquet"), "gone.parquet[7]", "no file", "gone.jpg")
    frame.assign(label=[[1]] * 8).to_parquet(tmp_path / "lists.parquet")
    assert says(problem(tmp_path / "lists.parquet"), "column label", "list")
    frame.assign(path=1.5).to_parquet(tmp_path / "floats.parquet")
    assert says(problem(tmp_path / "floats.parquet"), "column path", "double", "text", "binary")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "paths.parquet").read_bytes()[:-20])
    assert says(problem(tmp_path / "cut.parquet"), "cut.parquet", "Parquet")


def test_cifar(shared: Path) -> None:
    found = open_data(shared / "data/cifar10", per_class=5, seed=0)
    assert found.classes == ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert {name: len(split.paths) for name, split in found.splits.items()} == {"train": 50, "val": 10, "test": 10_000}
    assert decode(found.splits["val"].paths[0], 32).shape == (32, 32, 3)
