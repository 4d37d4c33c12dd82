"""The list of networks is made once for the libraries that are installed."""

from pathlib import Path

import pytest

from rekindle import models
from rekindle.cli import networks


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows when the libraries are asked."""
    times: list[str] = []
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "names", lambda: times.append("asked") or ["tiny", "resnet18", "resnet50"])
    return times


def test_it_is_made_once_and_matched_each_time(asked: list[str]) -> None:
    assert networks.network_names("resnet*") == ["resnet18", "resnet50"]
    assert networks.network_names() == ["tiny", "resnet18", "resnet50"] and len(asked) == 1


def test_another_version_makes_it_anew(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    networks.network_names()
    monkeypatch.setattr(networks, "version", lambda name: "0")
    networks.network_names()
    assert len(asked) == 2


def test_a_damaged_list_or_a_home_that_takes_none_is_no_fault(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks.network_names()
    [path] = (tmp_path / "home").iterdir()
    for number, text in enumerate(("[", "5", '{"names": 3}', '{"names": [1]}'), 2):
        path.write_text(text, "utf-8")
        assert networks.network_names("tiny") == ["tiny"] and len(asked) == number
    monkeypatch.setenv("REKINDLE_HOME", str(path / "below"))
    assert networks.network_names("tiny") == ["tiny"]
