"""Exported files answer as the run does, or there are none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageOps

import rekindle
from rekindle.errors import UserError
from rekindle.exporting import export as exporting
from rekindle.exporting.parity import CLOSE, compare
from rekindle.records import read_spec
from rekindle.run import Run
from tests.data.pictures import jpeg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of timm on pictures of many shapes, one of them turned by its EXIF data."""
    photos = tmp_path_factory.mktemp("data") / "photos"
    shapes = [(40, 36), (90, 40), (41, 97), (64, 64), (33, 200), (150, 60)]
    for split, count in (("train", 6), ("test", 5)):
        for label, name in enumerate(("äpfel", "pears, ripe")):
            folder = photos / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.jpg").write_bytes(jpeg(100 * label + number, shapes[number]))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(photos / "test" / "äpfel" / "1.jpg").save(photos / "test" / "äpfel" / "1.jpg", exif=turned)
    options = {"model": "test_resnet", "weights": "none", "image_size": 32, "epochs": 1, "batch_size": 4, "precision": "32"}
    return rekindle.fit(str(photos), out=tmp_path_factory.mktemp("runs"), **options).folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> exporting.Exported:
    """Everything that can be exported."""
    return rekindle.export(run, formats=("onnx", "timm"), int8=True, out=tmp_path_factory.mktemp("out"))


def test_both_formats_answer_as_the_run(exported: exporting.Exported) -> None:
    for parity in exported.parity.values():
        assert (parity.pictures, parity.same_class) == (10, 10)
        assert parity.largest_difference < 1e-5
    assert json.loads((exported.folder / "export.json").read_text()) == exported.to_dict()


def test_the_script_needs_no_rekindle(exported: exporting.Exported, run: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(exported.folder, tmp_path / "elsewhere")
    photos = sorted((Path(read_spec(run).data) / "test").rglob("*.jpg"))
    code = (
        "import runpy, sys; sys.modules['rekindle'] = sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, elsewhere / "classify.py", *photos], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    rows = [line.split("\t") for line in answer.stdout.splitlines()]
    for (name, label, confidence), expected in zip(rows, Run(run).predict(photos), strict=True):
        assert (name, label) == (expected.path, expected.classes[0])
        assert abs(float(confidence) - expected.confidences[0]) < 2e-4


def test_the_timm_folder_says_what_it_is(exported: exporting.Exported) -> None:
    config = json.loads((exported.folder / "timm" / "config.json").read_text("utf-8"))
    assert config["label_names"] == ["pears, ripe", "äpfel"]
    card = (exported.folder / "timm" / "README.md").read_text("utf-8")
    assert "library_name: timm" in card and "Accuracy on 10 test pictures" in card


def test_int8_is_smaller_and_measured(exported: exporting.Exported) -> None:
    assert exported.int8 is not None and exported.int8["pictures"] == 10
    assert exported.int8["bytes"] < 0.5 * (exported.folder / "model.onnx").stat().st_size


def test_an_export_that_answers_otherwise_is_refused(
    run: Path, exported: exporting.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is the one that was written before, whose writing takes seconds."""

    def shifted(path: Path, pictures: list[Path]) -> torch.Tensor:
        return exporting.answers_of_run(Run(run), pictures) + torch.tensor([3 * CLOSE, -3 * CLOSE])

    monkeypatch.setattr(exporting, "to_onnx", lambda run: onnx.load(exported.folder / "model.onnx"))
    monkeypatch.setattr(exporting, "answers_of_onnx", shifted)
    with pytest.raises(UserError, match="answers otherwise"):
        rekindle.export(run, out=tmp_path)
    assert not (tmp_path / "model.onnx").exists() and not (tmp_path / "classify.py").exists()


def test_nan_is_no_parity() -> None:
    expected = torch.tensor([[0.4, 0.6]])
    assert compare(expected, torch.tensor([[torch.nan, 0.6]])).largest_difference == float("inf")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formats": ("coreml",)}, "onnx, timm"),
        ({"formats": ("timm",), "int8": True}, "--format onnx"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(run: Path, tmp_path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        rekindle.export(run, out=tmp_path / "out", **options)  # type: ignore[arg-type]


def test_moved_pictures_are_asked_for(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    spec = (moved / "spec.yaml").read_text("utf-8")
    (moved / "spec.yaml").write_text("\n".join("data: gone" if line.startswith("data:") else line for line in spec.splitlines()), "utf-8")
    with pytest.raises(UserError, match="--data"):
        rekindle.export(moved)


def test_a_network_of_another_library_has_no_timm_folder(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    recipe = json.loads((copy / "model.json").read_text("utf-8"))
    (copy / "model.json").write_text(json.dumps({**recipe, "interpolation": "lanczos"}), "utf-8")
    with pytest.raises(UserError, match="lanczos"):
        rekindle.export(copy, out=tmp_path / "out")


def test_upright_as_pillow_turns_it(run: Path) -> None:
    """The script turns pictures by Pillow, the run by its own rule."""
    from rekindle.data import decode_whole

    path = Path(read_spec(run).data) / "test" / "äpfel" / "1.jpg"
    assert np.array_equal(decode_whole(path), np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")))


@pytest.mark.parametrize("dora", [False, True])
def test_a_run_with_lora_is_exported_as_the_plain_network(run: Path, tmp_path: Path, dora: bool) -> None:
    """Its small matrices are merged into the weights, so that files need no peft."""
    spec = read_spec(run)
    options = {"model": "test_resnet", "weights": "none", "image_size": 32, "epochs": 2, "batch_size": 4, "precision": "32", "lr": 0.05}
    low_rank = rekindle.fit(spec.data, method=f"l2+lora(rank=2, dora={dora})", out=tmp_path / "runs", **options)
    found = rekindle.export(low_rank.folder, formats=("onnx", "timm"), out=tmp_path / "out")
    for parity in found.parity.values():
        assert (parity.pictures, parity.same_class) == (10, 10) and parity.largest_difference < 1e-5
    names = {initializer.name for initializer in onnx.load(found.folder / "model.onnx").graph.initializer}
    assert not any("lora" in name for name in names)
