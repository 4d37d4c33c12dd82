"""Tables as spreadsheets, competitions and other libraries write them."""

import json
import os
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekindle.data import open_data
from rekindle.data.formats import table_rows
from rekindle.files import csv_text, plain_text, read_csv, safe_text

from .pictures import listed, write
from .test_folders import each_says, many, says, touch
from .test_tables import ROWS, problem, table


def everything(path: Path, **options: object) -> dict[str, str]:
    found = open_data(path, **options)  # type: ignore[arg-type]
    return {name: label for split in found.splits for name, label in listed(found, split).items()}


@pytest.mark.parametrize(
    "above", ["", "sep={0}\n", "SEP={0}\r\n", '"sep={0}"\n', "# exported 2024\n", "# a, b; c | d\n#\n\n", "\n\nsep={0}\n", "#", "# "]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("around", ["", " "])
def test_what_stands_above_a_header_and_between_cells(above: str, separator: str, around: str, tmp_path: Path) -> None:
    rows = [("image", "label"), *((f'"{name}"', f'"{label}"') for name, label in ROWS)]
    text = above.format(separator) + "\n".join(f"{around}{separator}{around}".join(row) for row in rows) + "\n"
    path = table(tmp_path, text)
    assert everything(path) == dict(ROWS)
    path.write_text(text + f"gone.jpg{separator}cat\n")
    row = 1 + text.count("\n")
    assert says(problem(path), f"labels.csv row {row}", "gone.jpg")


def test_a_separator_that_none_is_told(tmp_path: Path) -> None:
    assert says(problem(table(tmp_path, "image:label\n0.jpg:cat\n")), "separated", "comma", "semicolon", "tab")


@pytest.mark.parametrize("ending", [".jpg", ".png", ".JPEG"])
@pytest.mark.parametrize("folder", ["train", "train_images", "a/b", ""])
@pytest.mark.parametrize("header", ["id,breed", "image_id,label", "image,class", "Id,Category"])
@pytest.mark.parametrize("whole", [True, False])
def test_ids_are_read_where_one_folder_and_ending_fit(ending: str, folder: str, header: str, whole: bool, tmp_path: Path) -> None:
    prefix = f"{folder}/" if folder else ""
    touch(tmp_path, *(f"{prefix}{number}{ending}" for number in range(20)), *many("test", 5))
    shown = ending if whole and folder else ""
    (tmp_path / "labels.csv").write_text(header + "\n" + "".join(f"{number}{shown},{'ab'[number % 2]}\n" for number in range(20)))
    assert everything(tmp_path / "labels.csv") == {f"{prefix}{number}{ending}": "ab"[number % 2] for number in range(20)}
    notes = open_data(tmp_path / "labels.csv").notes
    assert len(notes) == 1 and says(notes[0], "20 rows", f"{prefix}ID{'' if shown else ending}")


def test_ids_that_fit_several_places_or_few_rows_are_told(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{number}.jpg" for folder in ("x", "y") for number in range(6)))
    path = tmp_path / "labels.csv"
    path.write_text("id,label\n" + "".join(f"{number},{'ab'[number % 2]}\n" for number in range(6)))
    assert says(problem(path), "labels.csv row 2", "x/0.jpg, y/0.jpg")
    touch(tmp_path, *(f"z/{number}.png" for number in range(10, 22)))
    path.write_text("id,label\n" + "".join(f"{number},{'ab'[number % 2]}\n" for number in range(10, 23)))
    assert each_says(problem(path).splitlines()[1:], ("labels.csv row 14", "no file", "z/22.png"))


@pytest.mark.parametrize("times", [2, 40])
def test_rows_repeated_to_even_out_classes_are_one_note(times: int, tmp_path: Path) -> None:
    rows = [*ROWS, *[row for row in ROWS if row[1] == "dog"] * (times - 1)]
    found = open_data(table(tmp_path, "image,label\n" + "".join(f"{name},{label}\n" for name, label in rows)))
    assert each_says(found.notes, ("labels.csv", f"{4 * (times - 1)} rows", "labels.csv row 10", "labels.csv row 2", "--sampler balanced"))


def test_json_lines(tmp_path: Path) -> None:
    write(tmp_path, 8)
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n".join(json.dumps({"file_name": name, "label": label}) for name, label in ROWS) + "\n\n")
    assert everything(path) == dict(ROWS)
    path.write_text(path.read_text() + "no json\n")
    assert says(problem(path), "metadata.jsonl row 10", "JSON", "file_name")
    path.write_text("")
    assert says(problem(path), "metadata.jsonl", "empty")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "labels.tsv", "train_labels.csv"])
@pytest.mark.parametrize("place", ["", "train/"])
def test_a_table_beside_flat_pictures_is_pointed_to(name: str, place: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{place}{number}.jpg" for number in range(5)), f"{place}{name}")
    assert says(problem(tmp_path), "no class folders", tmp_path / place / name)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1", "1.0", "2", "2.0"], ["1", "2"]), (["1.0", "2.0", "3.00", "10."], ["1", "2", "3", "10"]), (["1.5", "1.0", "1", "2"], ["1", "1.0", "1.5", "2"]),
        (["v1", "1.0", "1", "v1"], ["1", "v1"]), (["01", "1", "02", "1"], ["01", "1", "02"]), (["-3.0", "-3", "4", "4"], ["-3", "4"]),
    ],
)  # fmt: skip
def test_one_number_in_several_forms_is_one_class(labels: list[str], classes: list[str], tmp_path: Path) -> None:
    rows = "".join(f"{number}.jpg,{labels[number % len(labels)]}\n" for number in range(16))
    assert sorted(open_data(table(tmp_path, "image,label\n" + rows, pictures=16)).classes) == sorted(classes)


def test_numbers_of_one_split_are_text_in_another(tmp_path: Path) -> None:
    write(tmp_path, 16)
    names = [f"{number}.jpg" for number in range(16)]
    pq.write_table(pa.table({"image": names[:12], "label": [0, 1] * 6}), tmp_path / "train.parquet")
    (tmp_path / "test.csv").write_text("image,label\n" + "".join(f"{name},{number % 2}.0\n" for number, name in enumerate(names[12:])))
    assert open_data(tmp_path).counts()["test"] == {"0": 2, "1": 2}


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("told", ["NFC", "NFD"])
def test_accents_are_one_name_in_files_and_labels(stored: str, told: str, tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "übung") for form in ("NFC", "NFD")]
    files = [unicodedata.normalize(stored, f"é/ü{number}.jpg") for number in range(8)]
    touch(tmp_path, *files)
    rows = "".join(f"{unicodedata.normalize(told, file)},{forms[number % 2] if number < 4 else 'b'}\n" for number, file in enumerate(files))
    (tmp_path / "labels.csv").write_text("image,label\n" + rows)
    found = open_data(tmp_path / "labels.csv")
    assert found.classes == ["b", forms[0]] and found.notes == []
    (tmp_path / "labels.csv").write_text("image,label\n" + rows + f"{unicodedata.normalize('NFD', files[0])},{forms[0]}\n")
    assert len(open_data(tmp_path / "labels.csv").notes) == 1


def test_case_is_one_name_where_the_file_system_folds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *many("a", 4), *many("b", 4), *(name.upper() for name in many("a", 4)))
    rows = [
        *((name, "a") for name in many("a", 4)),
        *((name, "b") for name in many("b", 4)),
        *((name.upper(), "a") for name in many("a", 4)),
    ]
    (tmp_path / "labels.csv").write_text("image,label\n" + "".join(f"{name},{label}\n" for name, label in rows))
    assert len(everything(tmp_path / "labels.csv")) == 12
    monkeypatch.setattr(table_rows.os.path, "samefile", lambda one, two: str(one).casefold() == str(two).casefold())
    assert len(everything(tmp_path / "labels.csv")) == 8


def test_a_row_that_names_a_pipe_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label\n" + "".join(f"{name},{label}\n" for name, label in [*ROWS, ("pipe.jpg", "cat")]))
    os.mkfifo(tmp_path / "pipe.jpg")
    assert says(problem(path), "labels.csv row 10", "pipe.jpg", "ordinary")


TEXT = st.text(st.sampled_from("=+-@'\t\r\n ab1.\"，＝"), max_size=6) | st.text(max_size=6).filter(lambda text: "\0" not in text)


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_no_cell_is_a_formula_and_readers_get_the_text_back(rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    for text in (cell for row in rows for cell in row):
        assert plain_text(safe_text(text)) == text
        safe = safe_text(text)
        assert not safe.startswith(("=", "@", "\t", "\r", "\n")) and (not safe.startswith(("+", "-")) or float(safe) is not None)
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(csv_text(["path", "=class"], rows).encode("utf-8", "surrogatepass"))
    if path.read_bytes().decode("utf-8", "ignore").encode() == path.read_bytes():
        assert [(row["path"], row["=class"]) for row in read_csv(path)] == rows


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\tx", "＝1"])
def test_predictions_written_as_a_table_are_read_as_one(name: str, tmp_path: Path) -> None:
    write(tmp_path / "data", 8)
    text = csv_text(["path", "label"], [(file, name if label == "cat" else label) for file, label in ROWS])
    assert f"\n{name}" not in text and f",{name}" not in text
    (tmp_path / "data/predictions.csv").write_text(text)
    assert open_data(tmp_path / "data/predictions.csv").classes == sorted({name.strip(), "dog"})


def test_numbers_stay_numbers() -> None:
    assert csv_text(["a"], [[-0.5], ["-0.5"], ["-1e-3"], ["+2"]]) == "a\n-0.5\n-0.5\n-1e-3\n+2\n"
