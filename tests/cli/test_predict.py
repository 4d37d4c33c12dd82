"""Pictures that a run is unsure of, on a terminal, in files and on a page."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pytest

import rekindle
from rekindle.analysis.familiarity import FILE
from rekindle.cli import main
from rekindle.data import Preprocessing
from rekindle.errors import UserError
from rekindle.report.contact_sheet import in_order
from rekindle.run import Prediction
from tests.data.pictures import jpeg

NAMES = ("apples & <pears>", "plums")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, in splits."""
    root = tmp_path_factory.mktemp("data") / "photos"
    for split, count in (("train", 6), ("val", 12), ("test", 3)):
        for label, name in enumerate(NAMES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").write_bytes(jpeg(1000 * label + number, (40, 48)))
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> rekindle.Run:
    return rekindle.fit(photos, out=tmp_path_factory.mktemp("runs"), model="tiny", image_size=32, epochs=1, batch_size=4, lr=0.01)


def test_a_run_says_what_temperature_changed(run: rekindle.Run) -> None:
    result, recipe = run.result, json.loads((run.folder / "model.json").read_text("utf-8"))
    assert result["temperature"] == recipe["temperature"] > 0
    assert result["uncalibrated"].keys() == {"val", "test"}


def test_a_temperature_changes_confidences_alone(run: rekindle.Run, photos: Path, tmp_path: Path) -> None:
    """The odds of two classes are taken to the power 1 / T; a folder without a temperature reads as 1."""
    recipe = json.loads((run.folder / "model.json").read_text("utf-8"))
    answers = {}
    for temperature in (None, 1.0, 4.0):
        folder = shutil.copytree(run.folder, tmp_path / str(temperature))
        changed = {key: value for key, value in recipe.items() if key != "temperature"} | (
            {"temperature": temperature} if temperature else {}
        )
        (folder / "model.json").write_text(json.dumps(changed), "utf-8")
        answers[temperature] = rekindle.Run(folder).predict(photos / "test")
    assert answers[None] == answers[1.0]
    for one, other in zip(answers[1.0], answers[4.0], strict=True):
        p, q = one.confidences[0], other.confidences[0]
        assert one.classes == other.classes and (q / (1 - q)) ** 4 == pytest.approx(p / (1 - p), rel=1e-3)


def test_more_may_be_unsure_at_a_larger_share(run: rekindle.Run, photos: Path) -> None:
    assert all(row.unsure is None for row in run.predict(photos / "val"))
    counts = [sum(bool(row.unsure) for row in run.predict(photos / "val", unsure=share)) for share in (0.04, 0.2, 0.6, 0.99)]
    assert counts == [1, 5, 15, 24], "of the 24 validation pictures that set the thresholds"
    assert run.predict(photos / "val", unsure=True) == run.predict(photos / "val", unsure=0.05)


def test_csv_json_and_table(run: rekindle.Run, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["predict", str(run.folder), str(photos / "test"), "--unsure", "0.6"]
    assert main(command) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert {row["unsure"] for row in rows} <= {"0", "1"} and list(rows[0]) == ["path", "class_1", "confidence_1", "unsure", "error"]
    assert "threshold" not in printed.err
    assert main([*command[:3], "--json", "--unsure", "0.01"]) == 0
    printed = capsys.readouterr()
    assert all(isinstance(row["unsure"], bool) for row in json.loads(printed.out))
    assert "only 24 validation pictures set the threshold, so about 4 %" in printed.err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(command) == 0
    printed = capsys.readouterr()
    unsure = sum(row["unsure"] == "1" for row in rows)
    assert "class and confidence" in printed.out and printed.out.count("unsure") == unsure + 1
    assert printed.out.endswith(f"{unsure} of {len(rows)} unsure.\n")


def test_the_page_holds_every_picture_and_escapes_names(run: rekindle.Run, photos: Path, tmp_path: Path) -> None:
    new = shutil.copytree(photos / "test", tmp_path / "new")
    (new / "bro<ken.jpg").write_bytes(b"no picture")
    page = tmp_path / "sheet.html"
    for order in ("class", "confidence"):
        told = ["--top-k", "2", "--unsure", "0.5", "--html", str(page), "--sort", order, "--out", str(tmp_path / "out.csv")]
        assert main(["predict", str(run.folder), str(new), *told]) == 0
        text = page.read_text("utf-8")
        assert (
            text.count("data:image/jpeg") == 6
            and "bro&lt;ken.jpg" in text
            and "<pears>" not in text
            and "http" not in text.split("</head>")[1]
        )
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        unsure = sum(row["unsure"] == "1" for row in csv.DictReader(file))
    assert text.count('class="mark"') == unsure and f"6 pictures classified, {unsure} unsure" in text


def test_the_order_of_the_page() -> None:
    shares = {"a": [0.6, 0.9, 0.6], "b": [0.5, 0.95]}
    found = [Prediction(f"{name}{number}", [name], [share]) for name, row in shares.items() for number, share in enumerate(row)]
    assert [row.path for row in in_order(found[::-1], "class")] == ["a1", "a2", "a0", "b1", "b0"]
    assert [row.confidences[0] for row in in_order(found, "confidence")] == [0.5, 0.6, 0.6, 0.9, 0.95]


@pytest.mark.parametrize("share", ["0", "1", "nan", "-0.5", "new"])
def test_what_is_no_share_is_refused(run: rekindle.Run, photos: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["predict", str(run.folder), str(photos), f"--unsure={share}"])
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == 2 and "--unsure" in capsys.readouterr().err


def test_without_validation_there_is_no_threshold(run: rekindle.Run, photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / FILE).unlink()
    assert len(rekindle.Run(folder).predict(photos / "test")) == 6
    with pytest.raises(UserError, match="without validation pictures"):
        rekindle.Run(folder).predict(photos / "test", unsure=True)
    (folder / FILE).write_bytes(b"x" * 50)
    with pytest.raises(UserError, match=f"{FILE} is damaged"):
        rekindle.Run(folder).predict(photos / "test", unsure=True)


def test_two_views_are_averaged(run: rekindle.Run, photos: Path) -> None:
    """The mean of what the picture and its mirror image get; what is unsure is told by the picture alone."""
    one = photos / "test" / NAMES[0] / "0.jpg"
    pixels = Preprocessing.from_recipe(run.model[1]).pixels(one)
    both = run.probabilities([pixels, pixels[:, ::-1].copy()])
    [found] = run.predict(one, tta=True)
    assert found.confidences == [pytest.approx(float(both.mean(0).max()), abs=2e-6)] and not both[0].allclose(both[1], atol=1e-3)
    plain, mirrored = run.predict(photos / "val", unsure=0.4), run.predict(photos / "val", unsure=0.4, tta=True)
    assert [row.unsure for row in plain] == [row.unsure for row in mirrored] and plain != mirrored
    answers = [row.classes[0] for row in run.predict(photos / "test", tta=True)]
    assert run.evaluate(photos, tta=True)["accuracy"] == sum(answer == NAMES[place // 3] for place, answer in enumerate(answers)) / 6


def test_a_run_without_mirror_images_refuses_them(
    run: rekindle.Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    text = (folder / "spec.yaml").read_text("utf-8")
    (folder / "spec.yaml").write_text(text.replace("flip: true", "flip: false"), "utf-8")
    own = run.evaluate()
    assert own["accuracy"] == run.result["test"]["accuracy"] and own["count"] == 6, "of the run's own test split"
    for command in ("predict", "evaluate"):
        assert main([command, str(folder), str(photos / "test"), "--tta"]) == 2
        assert "was trained with --no-flip, as where a mirror image is of another class; leave --tta out." in capsys.readouterr().err
