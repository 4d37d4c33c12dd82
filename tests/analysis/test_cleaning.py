"""Wrong labels, outliers and near duplicates that are put in are found, and clean sets stay clean."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

import rekindle
from rekindle.analysis.cleaning import EDGE, READ, how_many, label_errors, members, near_duplicates, outliers, small_grey
from rekindle.analysis.linear_probe import out_of_fold
from rekindle.cli import main
from rekindle.data import decode
from rekindle.errors import UserError
from rekindle.files import csv_text
from rekindle.fitting.cleaning import clean
from rekindle.report.clean_page import write_cleaning
from tests.toys import picture_folder


def clusters(seed: int, per_class: int = 20, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Features of classes that are far apart."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return 6 * torch.eye(classes, 30)[labels] + torch.randn(len(labels), 30, generator=stream), labels


@pytest.mark.parametrize("wrong", [0, 1, 3, 8])
def test_labels_that_were_changed_are_named_with_the_class_they_had(wrong: int) -> None:
    features, truth = clusters(wrong)
    stream = torch.Generator().manual_seed(wrong)
    changed, given = torch.randperm(len(truth), generator=stream)[:wrong], truth.clone()
    given[changed] = (given[changed] + torch.randint(1, 4, (wrong,), generator=stream)) % 4
    found = {row: like for row, like, _ in label_errors(features, given)}
    assert found.items() <= {row: int(truth[row]) for row in changed.tolist()}.items(), "none that is right is named"
    assert len(found) >= 0.75 * wrong


@given(st.integers(1, 5000), st.floats(0, 1))
def test_a_quarter_more_than_the_estimate_is_named_and_no_more_than_people_read(pictures: int, share: float) -> None:
    estimate = round(share * pictures)
    named = how_many(estimate, pictures)
    assert 0 <= named <= pictures
    if estimate > pictures / 4:
        assert named == estimate
    else:
        assert named <= round(READ * pictures) and named <= round(1.25 * estimate) and (named or not estimate or pictures < 6)


def test_no_picture_is_judged_by_a_probe_that_has_seen_it() -> None:
    features, _ = clusters(0)
    labels = torch.arange(80) % 2  # Nothing in the features tells them, so only learning by heart is right.
    answers = out_of_fold(features, labels)
    assert np.allclose(answers.sum(1), 1)
    assert (answers.argmax(1) == labels.numpy()).mean() < 0.65


def test_classes_of_one_and_two_pictures_do_not_stop_it() -> None:
    features, labels = clusters(1)
    keep = torch.cat([torch.arange(60), torch.tensor([60, 61])])
    features, labels = torch.cat([features[keep], features[:1] + 9]), torch.cat([labels[keep], torch.tensor([4])])
    assert 62 not in [row for row, _, _ in label_errors(features, labels)]
    assert label_errors(features[:3], torch.tensor([0, 1, 2])) == []


def test_a_group_is_not_judged_by_a_probe_that_has_seen_one_of_it() -> None:
    """Twenty copies of one picture, all with one wrong label, learn it from each other; as a group they do not."""
    features, labels = clusters(3)
    features, labels = torch.cat([features, features[:1].repeat(20, 1)]), torch.cat([labels, torch.ones(20, dtype=torch.int64)])
    groups = [str(min(row, 80)) for row in range(100)]
    copies = set(range(80, 100))
    assert not copies & {row for row, _, _ in label_errors(features, labels)}
    assert copies == {row for row, like, _ in label_errors(features, labels, groups=groups) if like == 0}


def test_a_class_of_one_group_is_not_judged() -> None:
    features, labels = clusters(4)
    groups = ["one" if label == 3 else str(row) for row, label in enumerate(labels.tolist())]
    labels[60] = 0  # Looks like class 3, of which nothing is known.
    assert members(labels, groups).tolist() == [21, 20, 20, 1]
    found = label_errors(features, labels, groups=groups)
    assert all(labels[row] != 3 and like != 3 for row, like, _ in found)


def test_the_command_takes_groups_from_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All pictures of a class of one group stay unjudged, and a pattern that names do not hold is refused."""
    folder = picture_folder(tmp_path, {"train": 4, "val": 4})
    words = [
        "data",
        "clean",
        str(folder),
        "--model",
        "tiny",
        "--weights",
        "none",
        "--image-size",
        "32",
        "--out",
        str(tmp_path / "clean"),
        "--json",
    ]
    assert main([*words, "--group-pattern", "([^/]+)/[^/]+$"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unjudged"] == found["classes"] and not [issue for issue in found["issues"] if issue["kind"] == "label"]
    assert main([*words, "--group-pattern", "patient(.)"]) == 2


def test_a_picture_of_something_else_is_an_outlier_and_a_clean_set_has_hardly_any() -> None:
    features, _ = clusters(2)
    assert len(outliers(features)) <= 1
    strange = features.clone()
    strange[7] = -10 * torch.eye(30)[25]
    (row, score), *rest = outliers(strange)
    assert row == 7 and 0.5 < score <= 1 and len(rest) <= 1
    assert outliers(features[:20]) == []


VARIANTS = {
    "mirrored": ImageOps.mirror, "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2), "as it is": lambda image: image,
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_picture_is_found_across_splits_and_that_of_the_test_is_kept(variant: str) -> None:
    rng = np.random.default_rng(5)
    images = [Image.fromarray(rng.integers(0, 200, (8, 6, 3), np.uint8)).resize((120, 160)) for _ in range(6)]
    images.append(VARIANTS[variant](images[2]))
    features = torch.eye(6, 12)[[0, 1, 2, 3, 4, 5, 2]] + 0.01
    splits = ["train"] * 6 + ["test"]
    small = np.stack([small_grey(np.asarray(image)) for image in images])
    assert small.shape == (7, EDGE, EDGE)
    (group,) = near_duplicates(features, small, splits)
    assert [row for row, _ in group] == [6, 2] and group[1][1] > 0.985
    assert near_duplicates(features, small[[0, 1, 2, 3, 4, 5, 0]], splits) == [], "alike to the network, but other pictures"
    assert near_duplicates(torch.eye(7, 12), small, splits) == [], "alike when small, but not to the network"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes told by colour; two pictures have the other's label, and one stands in the test split too."""
    root = picture_folder(tmp_path_factory.mktemp("spoilt"), {"train": 14, "test": 3})
    for one, other in (("class0", "class1"), ("class1", "class0")):
        (root / "train" / one / "000.png").rename(root / "train" / other / "wrong.png")
    shutil.copy(root / "test" / "class0" / "001.png", root / "train" / "class0" / "=copy.png")
    return root


def test_the_command_names_them_in_a_page_and_in_a_file_that_fit_takes(
    spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    assert main(["data", "clean", str(spoilt), "--model", "tiny", "--out", str(out), "--json"]) == 0
    issues = json.loads(capsys.readouterr().out)["issues"]
    labels = {issue["path"]: (issue["label"], issue["suggestion"]) for issue in issues if issue["kind"] == "label"}
    assert labels["train/class1/wrong.png"] == ("class1", "class0") and labels["train/class0/wrong.png"] == ("class0", "class1")
    copies = {issue["path"]: issue["suggestion"] for issue in issues if issue["kind"] == "duplicate"}
    assert copies["train/class0/=copy.png"] == "test/class0/001.png"
    with open(out / "clean.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "split", "kind", "label", "suggestion", "score"] and len(rows) == len(issues)
    page = (out / "clean.html").read_text("utf-8")
    assert "looks like" in page and page.count("<img") >= 3 and "<script" not in page and "http" not in page.replace("http-equiv", "")
    run = rekindle.fit(spoilt, out=tmp_path, model="tiny", epochs=1, image_size=16, lr=0.01, exclude=str(out / "clean.csv"))
    used = json.loads((run.folder / "data.json").read_text("utf-8"))["files"]
    assert not {issue["path"] for issue in issues} & {*used["train"], *used["val"]} and len(used["test"]) == 6


@pytest.fixture
def folds(spoilt: Path, tmp_path: Path) -> Path:
    """What two networks of a cross-validation said that see through the wrong labels, and through one that the features do not give away."""
    home, names = tmp_path / "folds", ["class0", "class1"]
    home.mkdir()
    (home / "folds.json").write_text('{"format": 1, "folds": 2}')
    rows = []
    for path in sorted((spoilt / "train").rglob("*.png")):
        label = path.parent.name
        said = names[1 - names.index(label)] if path.name in ("wrong.png", "005.png") else label
        shares = [0.97 if name == said else 0.03 for name in names]
        rows.append(["val", path.relative_to(spoilt).as_posix(), label, said, 0.97, int(said == label), *shares])
    header = ["split", "path", "label", "prediction", "confidence", "correct", "p_class0", "p_class1"]
    (home / "predictions.csv").write_text(csv_text(header, rows), encoding="utf-8")
    return home


def test_labels_are_judged_by_the_networks_of_a_cross_validation(
    spoilt: Path, folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "clean", str(spoilt), "--model", "tiny", "--predictions", str(folds), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "4 labels look wrong (by the networks of" in told.out and "no prediction for 6 of " in told.err
    with open(tmp_path / "out" / "clean.csv", encoding="utf-8", newline="") as file:
        found = {row["path"]: row["suggestion"] for row in csv.DictReader(file) if row["kind"] == "label"}
    wrong = {f"train/class{own}/{name}.png": f"class{1 - own}" for own in (0, 1) for name in ("wrong", "005")}
    assert found == wrong, "also a label that the features fit"
    assert "the fine-tuned networks of folds" in (tmp_path / "out" / "clean.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folds: (folds / "folds.json").unlink(), "no cross-validation"),
        (lambda folds: (folds / "predictions.csv").unlink(), "has not finished"),
        (lambda folds: _in_file(folds, "p_class1", "p_dog"), "the classes class0, dog, and here are class0, class1"),
        (lambda folds: _in_file(folds, "train/", "other/"), "no prediction for a picture"),
        (lambda folds: _in_file(folds, "0.03", "?"), "damaged"),
    ],
)
def test_predictions_that_say_nothing_of_the_data_are_refused(
    spoilt: Path, folds: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    spoil(folds)
    with pytest.raises(UserError, match=sentence):
        clean(spoilt, model="tiny", predictions=folds)


def _in_file(folds: Path, old: str, new: str) -> None:
    path = folds / "predictions.csv"
    path.write_text(path.read_text("utf-8").replace(old, new), encoding="utf-8")


def test_names_and_classes_cannot_write_into_the_page(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "data", {"train": 12, "test": 2})
    for split in ("train", "test"):
        (root / split / "class0").rename(root / split / "<b>bold&")
    (root / "train" / "class1" / "000.png").rename(root / "train" / "<b>bold&" / "<i>.png")
    page, _ = write_cleaning(tmp_path / "out", clean(root, model="tiny"))
    text = page.read_text("utf-8")
    assert "<b>bold" not in text and "<i>." not in text and "&lt;b&gt;bold" in text


def test_without_cleanlab_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    with pytest.raises(UserError, match=r"pip install 'rekindle\[clean\]'"):
        label_errors(*clusters(0))


def test_photographs_with_a_wrong_label_are_found(shared: Path, tmp_path: Path) -> None:
    kinds = ("hat", "pants", "shoes")
    for kind in kinds:
        for number, file in enumerate(sorted((shared / "data" / "clothing" / "validation" / kind).iterdir())[:10]):
            label = kinds[(kinds.index(kind) + 1) % 3] if number == 0 else kind
            image = Image.fromarray(decode(file, 256))
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "data" / label / f"{'wrong' if number == 0 else 'right'}-{kind}-{number}.jpg")
    found = clean(tmp_path / "data").of("label")
    assert len([issue for issue in found if "wrong-" in issue.path and f"wrong-{issue.suggestion}" in issue.path]) >= 2
    assert len(found) <= 5
