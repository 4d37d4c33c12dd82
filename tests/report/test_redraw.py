"""A run's page drawn again, with heat maps and without its pictures."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import rekindle
from rekindle.cli import main
from rekindle.report.cards import read_cards
from tests.toys import picture_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run, and its data in data beside it."""
    root = tmp_path_factory.mktemp("redraw")
    data = picture_folder(root / "data", {"train": 4, "val": 3})
    options = {"model": "cifar_resnet8", "weights": "none", "epochs": 1, "lr": 0.01, "batch_size": 4, "precision": "32"}
    yield rekindle.fit(data, out=root / "runs", **options).folder


def test_figures_that_were_lost_are_drawn_again(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in (*made.glob("*.svg"), made / "mistakes.json", made / "report.html")}
    assert {"curves.svg", "confusion.svg", "reliability.svg"} <= before.keys()
    for name in before:
        (made / name).unlink()
    assert main(["report", str(made)]) == 0
    assert capsys.readouterr().out.strip() == str(made / "report.html")
    assert {name: (made / name).read_bytes() for name in before} == before


def test_heat_maps_stand_beside_the_pictures_as_the_network_saw_them(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made, tmp_path / "run")
    assert main(["report", str(run), "--explain"]) == 0
    cards = read_cards(run / "heat_maps.json")
    assert cards and all(card["heat"] != card["image"] for card in cards)
    wrong = [card["label"] != card["prediction"] for card in cards]
    assert wrong == sorted(wrong, reverse=True), "mistakes come first"
    page = (run / "report.html").read_text("utf-8")
    assert "Where the network looked" in page and all(card["heat"] in page for card in cards)


def test_a_run_whose_pictures_are_gone_keeps_those_of_its_page(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = shutil.copytree(made, tmp_path / "run"), made.parents[1] / "data"
    hidden = data.rename(data.with_name("moved"))
    try:
        cards = read_cards(run / "mistakes.json")
        assert main(["report", str(run)]) == 0
        assert read_cards(run / "mistakes.json") == cards and "stay as they are" in capsys.readouterr().err
        assert main(["report", str(run), "--explain"]) == 2
        assert "heat maps need the run's pictures" in capsys.readouterr().err
    finally:
        hidden.rename(data)


def test_a_damaged_picture_in_the_folder_is_told(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(made, tmp_path / "run")
    with Image.open(run / "samples.png") as image:
        assert image.width > 100
    (run / "samples.png").write_bytes(b"broken")
    assert main(["report", str(run)]) == 2
    assert "samples.png is damaged" in capsys.readouterr().err
