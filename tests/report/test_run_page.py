"""The page: it opens offline, runs nothing, and leaves out what it does not have."""

import json
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rekindle.cli import parser as command_parser
from rekindle.errors import UserError
from rekindle.files import embed
from rekindle.report.cards import THUMB, read_cards, write_cards
from rekindle.report.format import place_name
from rekindle.report.heat_cards import RIGHT, WRONG
from rekindle.report.results import WORST, confused_pairs
from rekindle.report.run_page import fit_command, write_report
from rekindle.report.run_pictures import PICTURES
from rekindle.report.statistics import wilson
from rekindle.spec import RunSpec

from .conftest import MakeRun

ANSWERS = [(0, 0), (0, 0), (1, 1), (1, 2), (2, 2), (2, 0)]
LINKS = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.source = path.read_text("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in LINKS]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\xa0", " ")


def test_the_page_asks_nothing_of_the_network(make_run: MakeRun) -> None:
    page = Page(make_run("run", ANSWERS) / "report.html")
    assert len(page.addresses) == len(PICTURES) + 2, "two mistakes"
    assert all(address.startswith(("data:image/svg+xml;base64,", "data:image/jpeg;base64,")) for address in page.addresses)
    assert "url(" not in page.source and "@import" not in page.source and "http://" not in page.source and "https://" not in page.source


def test_names_are_text_and_nothing_else(make_run: MakeRun) -> None:
    folder = make_run("run", ANSWERS, data="<img src=x onerror=alert(1)>")
    page = Page(folder / "report.html")
    assert "script" not in page.tags and page.tags.count("img") == len(PICTURES) + 2 and not page.handlers
    assert "<script>alert('dog')</script>" in page.text
    assert "<img src=x onerror=alert(1)>" in page.text
    assert "a <b>note</b>" in page.text and "b" not in page.tags


def test_the_headline_is_the_test_accuracy_with_its_interval(make_run: MakeRun) -> None:
    text = Page(make_run("run", ANSWERS) / "report.html").text
    assert "66.7 %" in text and "4 of 6 test pictures" in text
    low, high = wilson(4 / 6, 6)
    assert f"{100 * low:.1f} to {100 * high:.1f} %" in text


def test_without_a_test_split_the_headline_is_validation_and_says_so(make_run: MakeRun) -> None:
    text = Page(make_run("run", ANSWERS, test=False) / "report.html").text
    assert "4 of 6 validation pictures" in text and "There is no test split" in text


def test_sections_whose_files_are_missing_are_left_out(make_run: MakeRun) -> None:
    folder = make_run("run", ANSWERS)
    whole = Page(folder / "report.html").text
    for name in (
        "samples.png",
        "curves.svg",
        "mistakes.json",
        "confusion.svg",
        "reliability.svg",
        "spec.yaml",
        "environment.json",
        "data.json",
        "metrics.jsonl",
        "predictions.csv",
    ):
        (folder / name).unlink()
    page = Page(write_report(folder))
    for heading in (
        "Learning curves",
        "Surest mistakes",
        "Can confidences be believed?",
        "What the network sees",
        "Confusion matrix",
        "Settings",
        "Environment",
        "Notes on the data",
        "again:",
    ):
        assert heading in whole and heading not in page.text
    assert "img" not in page.tags and "Class by class" in page.text


def test_the_restart_is_told(make_run: MakeRun) -> None:
    assert "re-initialised 1 time, as epoch 3 began" in " ".join(Page(make_run("run", ANSWERS) / "report.html").text.split())


def test_the_first_screen_says_how_good_it_is_what_to_do_when_and_by_whom(make_run: MakeRun) -> None:
    folder = make_run("run", ANSWERS, report=False)
    (folder / "environment.json").write_text('{"packages": {"rekindle": "9.8.7"}}', encoding="utf-8")
    result = json.loads((folder / "result.json").read_text())
    result |= {"cautions": ["a <caution>"], "probe": {"test": {"accuracy": 0.5}}}
    result["timing"]["finished"] = "2026-01-02 03:04"
    page = Page(write_report(folder, result))
    top = " ".join(page.text.partition("Learning curves")[0].split())
    for words in ("fine-tuning adds 16.7 points", "Next:", "Caution: a <caution>", "finished 2026-01-02 03:04", "rekindle 9.8.7"):
        assert words in top
    worse = Page(write_report(folder, {**result, "probe": {"test": {"accuracy": 0.75}}})).text
    assert "fine-tuning loses 8.3 points" in worse and "Fine-tuning did not beat the linear probe" in worse


def test_the_commands_name_a_run_as_it_is_seen_from_here(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run("a run", ANSWERS, report=False)
    monkeypatch.chdir(tmp_path)
    text = Page(write_report(folder)).text
    assert "rekindle predict 'a run' new-pictures/" in text and str(tmp_path) not in text


def test_a_thousand_pictures_take_less_than_three_megabytes(make_run: MakeRun) -> None:
    """What grows with the test set is the file of answers, which the page does not hold."""
    folder = make_run("run", [(number % 3, (number + number % 2) % 3) for number in range(40)])
    noise = np.random.default_rng(0)
    card = read_cards(folder / "mistakes.json")[0]
    picture = Image.fromarray(noise.integers(0, 256, (THUMB, 2 * THUMB, 3), np.uint8))
    picture.save(folder / "noise.jpg", quality=80)
    worst = {**card, "image": embed((folder / "noise.jpg").read_bytes())}
    write_cards(folder / "mistakes.json", [worst] * WORST)
    write_cards(folder / "heat_maps.json", [{**worst, "heat": worst["image"]}] * (WRONG + RIGHT))
    assert write_report(folder).stat().st_size < 3e6


def test_a_run_that_has_not_finished_is_refused(make_run: MakeRun) -> None:
    folder = make_run("run", ANSWERS)
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match="fit --resume"):
        write_report(folder)


def test_the_page_is_the_same_from_memory_and_from_files(make_run: MakeRun) -> None:
    folder = make_run("run", ANSWERS)
    before = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == before


def test_the_command_to_run_again_parses_to_the_same_settings() -> None:
    spec = RunSpec(data="my photos", method="l2_sp(alpha=0.01)+rifle(periods=2)", flip=False, lr=0.05, class_weights="balanced", seed=3)
    words = shlex.split(fit_command(spec.to_dict()))
    assert words[0] == "rekindle" and not {"auto", "none", "all"} & set(words)
    options = vars(command_parser().parse_args(words[1:]))
    assert RunSpec(**{name: options.get(name, value) for name, value in RunSpec(data="").to_dict().items()}) == spec


def test_confused_pairs_come_by_count_then_share() -> None:
    found = confused_pairs([[5, 2, 0], [2, 0, 2], [0, 0, 0]], ["a", "b", "c"], limit=2)
    assert [(pair["true"], pair["predicted"], pair["share"]) for pair in found] == [("b", "a", 0.5), ("b", "c", 0.5)]


@pytest.mark.parametrize(
    ("place", "name"),
    [("/home/ann/photos", "photos"), ("photos/", "photos"), ("hf:ann/birds", "hf:ann/birds"), ("flowers102", "flowers102"), ("/", "/")],
)
def test_the_headline_names_the_data_and_not_the_way_there(place: str, name: str, make_run: MakeRun) -> None:
    folder = make_run("run", ANSWERS, report=False)
    result = {**json.loads((folder / "result.json").read_text()), "data": place}
    text = Page(write_report(folder, result)).text
    assert place_name(place) == name and name in text and "/home/ann" not in text.partition("Use it")[0]
