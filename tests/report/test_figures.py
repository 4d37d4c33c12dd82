"""The pictures: they are drawn, they hold what they should, and names in them are never mathematics."""

import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from rekindle.report import colors, figures
from rekindle.report.format import short

from .conftest import CLASSES, history


def written(figure: Figure, folder: Path) -> np.ndarray:
    """Save with every warning an error, and read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.save(figure, folder / "figure.png")
    with Image.open(folder / "figure.png") as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("epochs", [1, 7, 90])
def test_curves_mark_each_restart_and_name_it_once(epochs: int, tmp_path: Path) -> None:
    restarts = tuple(range(2, epochs, 3))
    figure = figures.curves(history(epochs, restarts))
    assert written(figure, tmp_path).std() > 5
    for panel in figure.axes:
        marks = [line for line in panel.lines if to_hex(line.get_color()) == to_hex(figures.RED)]
        assert [line.get_xdata()[0] for line in marks] == [epoch + 0.5 for epoch in restarts]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names.count("head re-initialised") == (1 if restarts else 0)
    assert {"training", "validation", "backbone", "head"} <= set(names)


def test_curves_show_the_direction_where_there_is_one(tmp_path: Path) -> None:
    lines = history(4)
    for number, line in enumerate(lines):
        line["direction"] = {"cosine": 0.5 - 0.25 * number, "conflicts": 0.25 * number, "cosines": []}
    figure = figures.curves(lines)
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[-1].lines}
    assert drawn["mean cosine"] == [0.5, 0.25, 0.0, -0.25] and drawn["share in conflict"] == [0.0, 0.25, 0.5, 0.75]
    assert len(figures.curves(history(4)).axes) == len(figure.axes) - 1
    assert written(figure, tmp_path).std() > 5


def test_curves_show_the_numbers_at_the_end_of_their_epochs() -> None:
    figure = figures.curves(history(4))
    validation = next(line for line in figure.axes[1].lines if line.get_label() == "validation")
    assert validation.get_xdata().tolist() == [1, 2, 3, 4] and validation.get_ydata() == pytest.approx([0, 12.5, 25, 37.5])


@pytest.mark.parametrize("classes", [2, 20, 21, 200])
def test_confusion_is_coloured_by_row_and_numbered_up_to_twenty_classes(classes: int, tmp_path: Path) -> None:
    counts = np.diag(np.arange(classes)) + np.eye(classes, k=1, dtype=int)
    figure = figures.confusion(counts.tolist(), [f"{CLASSES[i % 3]}{i}" for i in range(classes)])
    assert written(figure, tmp_path).std() > 5
    shares = np.asarray(figure.axes[0].images[0].get_array())
    assert shares.sum(1) == pytest.approx(np.minimum(counts.sum(1), 1)), "each row sums to 1, or to 0 for a class without pictures"
    assert len(figure.axes[0].texts) == (np.count_nonzero(counts) if classes <= 20 else 0)
    assert len(figure.axes[0].get_xticks()) <= 100


def test_dollars_underscores_and_any_script_are_drawn_as_text(tmp_path: Path) -> None:
    names = ["$_{", "a_b^c", "$\\frac", "鳥", "<b>"]
    assert written(figures.samples(np.zeros((5, 4, 4, 3), np.uint8), names), tmp_path).size
    drawn = ElementTree.fromstring(figures.svg(figures.confusion(np.eye(5, dtype=int).tolist(), names)))
    assert set(names) <= {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}


def test_full_grids_give_each_picture_a_place_of_its_own(tmp_path: Path) -> None:
    for count in (figures.COLUMNS * 4, figures.COLUMNS * 2 + 1):
        figure = figures.samples(np.full((count, 4, 4, 3), 200, np.uint8), ["a name"] * count)
        assert written(figure, tmp_path).std() > 5
        places = [axes.get_window_extent().bounds for axes in figure.axes if axes.images]
        assert len(places) == len({tuple(np.round(place)) for place in places}) == count


DRAWN = {
    "curves": lambda: figures.curves(history(3, (1,))),
    "confusion": lambda: figures.confusion([[3, 1], [0, 2]], ["a", "b"]),
    "many classes": lambda: figures.confusion(np.eye(30, dtype=int).tolist(), [str(i) for i in range(30)]),
    "reliability": lambda: figures.reliability({"now": (np.array([0.2, 0.9, 1.0]), np.array([False, True, True]))}),
    "seeds": lambda: figures.seed_curves({"l2": [history(3), history(3)]}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawings_have_no_ink_or_paper_of_their_own(name: str, tmp_path: Path) -> None:
    """Every colour is the page's ink, or one that stands out from light and dark paper; black and white only inside cells of a colour."""
    figures.save_svg(DRAWN[name](), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text("utf-8")
    assert ElementTree.fromstring(text).tag.endswith("svg") and "prefers-color-scheme:dark" in text and "var(--ink)" in text
    body = text.partition("</style>")[2].replace("</style>", "")
    used = {color.lower() for color in re.findall(r"(?:fill|stroke): (#[0-9a-fA-F]{6})", body)} - {"#ffffff"}
    assert used <= {color.lower() for color in (*colors.COLORS, colors.GREY)}
    assert figures.svg(DRAWN[name]()) == figures.svg(DRAWN[name]()), "equal figures are equal text"


def test_reliability_puts_each_bin_at_its_own_confidence_and_share_of_right_answers() -> None:
    confidence, right = np.array([0.61, 0.69, 0.95, 1.0]), np.array([True, False, True, True])
    figure = figures.reliability({"before": (confidence / 2, right), "after": (confidence, right)})
    line = next(line for line in figure.axes[0].lines if line.get_label() == "after")
    assert line.get_xdata() == pytest.approx([65, 97.5]) and line.get_ydata() == pytest.approx([50, 100])


def test_seed_curves_draw_mean_and_range() -> None:
    low, high = history(4), history(4)
    for line in high:
        line["val"]["accuracy"] += 0.2
    axes = figures.seed_curves({"l2": [low, high]}).axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([10, 22.5, 35, 47.5])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(0) and band.max() == pytest.approx(57.5)


def test_long_names_are_cut_to_a_width() -> None:
    assert short("x" * 30, 10) == "x" * 9 + "…"
    assert short("鳥" * 30, 10) == "鳥" * 4 + "…"
    assert short("two\nlines", 10) == "two lines"


def test_a_failed_write_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OSError, match="taken"):
        figures.save(figures.seed_curves({"l2": [history(2)]}), tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]
