"""The demonstration's words follow its numbers, and it ends in a page."""

from pathlib import Path

import pytest

from rekindle.cli import demo, main
from rekindle.cli.demo import Way, outcome
from rekindle.training.listener import Silent


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [(0.7, "+20.0 points against other."), (0.4, "-10.0 points against other."), (0.52, "+2.0 points against other (no difference")],
)
def test_outcome(accuracy: float, words: str) -> None:
    first = Way("first", accuracy, accuracy - 0.04, accuracy + 0.04)
    text = outcome([first, Way("other", 0.5, 0.46, 0.54)], 300)
    assert words in text and f"{100 * accuracy:.1f} % of 300" in text


def test_a_short_one_ends_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, on fewer and smaller pictures."""
    monkeypatch.setattr(demo, "POOL", 150)
    monkeypatch.setattr(
        demo, "SETTINGS", {**demo.SETTINGS, "image_size": 32, "per_class": 2, "epochs": 1, "lr": 0.001, "batchnorm": "frozen"}
    )
    assert main(["demo", "--out", str(tmp_path)]) == 0
    page, told = (tmp_path / "demo.html").read_text("utf-8"), capsys.readouterr().out
    for name in (demo.DEFAULT, demo.PROBE):
        assert name in told and name in page
    reports = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("runs/*/report.html"))
    assert len(reports) == 1 and all(f'href="{report}"' in page for report in reports)


@pytest.mark.slow
def test_the_whole_one_shows_what_fine_tuning_gains(tmp_path: Path) -> None:
    default, probe = demo.demo(tmp_path, Silent()).ways
    assert default.low > probe.high
