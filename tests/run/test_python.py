"""rekindle from Python: what a run shows of itself, what it predicts from, and how a program hears of a run."""

import io
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

import rekindle
from rekindle import Method, RekindleWarning, Rifle, Run, UserError
from rekindle.fitting import job
from rekindle.training.listener import tell_caution
from rekindle.training.watching import watching
from tests.toys import Notes, picture_folder

OPTIONS: dict[str, Any] = {
    "model": "tiny", "epochs": 1, "image_size": 16, "batch_size": 4, "precision": "32", "workers": 0, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("python") / "data & more", {"train": 4, "val": 2, "test": 2})


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return rekindle.fit(folder, out=folder.parent / "runs", method=Rifle(periods=1), name="a_run", **OPTIONS)


def test_a_run_shows_its_figures(run: Run) -> None:
    accuracy = f"{100 * run.result['test']['accuracy']:.1f} % of 4, linear probe {100 * run.result['probe']['test']['accuracy']:.1f} %"
    assert repr(run) == f"Run({str(run.folder)!r}: method rifle(periods=1), network tiny, val {_val(run)}, test {accuracy})"
    page = run._repr_html_()
    assert accuracy in page and "rifle(periods=1)" in page and "a_run" in page and "data:image/svg+xml;base64," in page
    assert "data%20%26%20more" not in page and f'href="{run.folder.as_posix()}/report.html"'.replace(" ", "%20").replace("&", "%26") in page


def _val(run: Run) -> str:
    return f"{100 * run.result['val']['accuracy']:.1f} % of 4, linear probe {100 * run.result['probe']['val']['accuracy']:.1f} %"


@pytest.mark.parametrize("result", [None, "{"])
def test_a_run_without_a_result_shows_that(result: str | None, tmp_path: Path) -> None:
    if result is not None:
        (tmp_path / "result.json").write_text(result)
    assert repr(Run(tmp_path)) == f"Run({str(tmp_path)!r}: not finished)"
    assert "not finished" in Run(tmp_path)._repr_html_()


def _array(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


WAYS: list[Callable[[list[Path]], Any]] = [
    lambda paths: paths,
    lambda paths: [Image.open(path) for path in paths],
    lambda paths: [_array(path) for path in paths],
    lambda paths: np.stack([_array(path) for path in paths]),
    lambda paths: [np.stack([_array(paths[0]), _array(paths[1])]), str(paths[2]), Image.open(paths[3])],
    lambda paths: tuple(paths),
]


@pytest.mark.parametrize("unsure", [False, True])
@pytest.mark.parametrize("way", range(len(WAYS)))
def test_pictures_in_memory_are_predicted_as_their_files(way: int, unsure: bool, run: Run, folder: Path) -> None:
    paths = sorted((folder / "test").rglob("*.png"))
    expected = run.predict(folder / "test", top_k=2, unsure=unsure)
    found = run.predict(WAYS[way](paths), top_k=2, unsure=unsure)
    assert [(row.classes, row.confidences, row.unsure) for row in found] == [(row.classes, row.confidences, row.unsure) for row in expected]


def test_pictures_in_memory_are_named_by_their_places(run: Run, folder: Path) -> None:
    path = next((folder / "test").rglob("*.png"))
    given: list[Any] = [Image.open(path), path, _array(path), np.stack([_array(path)] * 2)]
    assert [row.path for row in run.predict(given)] == ["[0]", str(path), "[2]", "[3][0]", "[3][1]"]
    assert [row.path for row in run.predict(_array(path))] == ["[0]"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_kind_of_image_is_read_as_its_file_is(mode: str, run: Run, folder: Path, tmp_path: Path) -> None:
    with Image.open(next((folder / "test").rglob("*.png"))) as image:
        made = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    made.save(tmp_path / "one.tif")
    [from_memory], [from_file] = run.predict(made), run.predict(tmp_path / "one.tif")
    assert not from_file.error and (from_memory.classes, from_memory.confidences) == (from_file.classes, from_file.confidences)


def test_an_image_that_cannot_be_read_has_its_row(run: Run) -> None:
    [row] = run.predict([Image.new("F", (8, 8))])
    assert "floating-point" in row.error and not row.classes


BAD: list[tuple[Any, str]] = [
    (np.zeros((4, 4, 3)), "uint8"), (np.zeros((3, 8, 8), np.uint8), "found uint8 (3, 8, 8)"), (np.zeros((0, 4), np.uint8), "found uint8"),
    ([5], "a picture is a path, a PIL image or an array of pixels, found 5"), (None, "found None"), ([b"x"], "found b'x'"), ([], "no pictures"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "words"), BAD, ids=[words for _, words in BAD])
def test_what_is_no_picture_is_refused_in_a_sentence(given: Any, words: str, run: Run) -> None:
    with pytest.raises(UserError) as caught:
        run.predict(given)
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


@dataclass
class Nothing(Method):
    """A method of the program's own."""

    paper: ClassVar[str] = "none"


@pytest.fixture
def cautioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "cautions", lambda result: ["look twice."])


def test_a_program_hears_notes_in_its_log_and_cautions_as_warnings(
    folder: Path, tmp_path: Path, cautioned: None, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed where nobody looks."""
    caplog.set_level(logging.INFO, logger="rekindle")
    with pytest.warns(RekindleWarning, match="^look twice.$") as caught:
        rekindle.fit(folder, out=tmp_path, method=[Nothing()], **OPTIONS)
    assert [one.filename for one in caught if one.category is RekindleWarning] == [__file__]
    told = {record.getMessage(): record.levelname for record in caplog.records if record.name == "rekindle"}
    assert any("1 epoch of" in text and level == "INFO" for text, level in told.items())
    assert told["look twice."] == "WARNING"
    assert any(text.startswith("nothing stands in no package's entry point rekindle.methods") for text in told)
    assert capsys.readouterr() == ("", "")


def test_a_listener_hears_cautions_as_notes() -> None:
    notes = Notes()
    with watching(notes) as watcher:
        tell_caution(watcher, "look twice.")
    assert notes.kept == ["caution: look twice."] and not watcher.cautions


@pytest.mark.parametrize(("terminal", "shown"), [(True, "a note\n"), (False, "")])
def test_a_terminal_gets_what_is_said(terminal: bool, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(printed, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", printed)
    with watching(None) as watcher:
        watcher.note("a note")
    assert printed.getvalue() == shown


def test_the_package_lists_its_public_names() -> None:
    assert {"fit", "Run", "Rifle", "RekindleWarning", "__version__"} <= set(dir(rekindle)) and rekindle.__version__
    assert all(hasattr(rekindle, name) for name in dir(rekindle))
