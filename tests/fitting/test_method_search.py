"""`--method auto` tries a short list within its budget, and never ends below plain fine-tuning on validation."""

import json
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.fitting import method_search
from rekindle.fitting.method_search import beats, candidates
from tests.toys import picture_folder


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    picture_folder(tmp_path / "data", {"train": 10, "val": 6, "test": 4})
    return {"data": str(tmp_path / "data"), "model": "tiny", "epochs": 8, "batch_size": 8, "out": tmp_path / "runs", "precision": "32"}


def trials(out: Path) -> list[dict[str, Any]]:
    [folder] = out.glob("auto-*")
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/result.json"))]


def test_it_costs_at_most_two_plain_runs_and_reads_the_test_split_once(options: dict[str, Any]) -> None:
    result = rekindle.fit(**options, method="auto").result
    tried = result["tried"]
    assert [row["epochs"] for row in tried] == [8, 1, 1, 1, 1, 4]
    assert sum(row["epochs"] for row in tried) <= 2 * 8
    assert "test" in result and not any("test" in trial for trial in trials(options["out"]))
    assert result["val"]["accuracy"] >= tried[0]["accuracy"]
    page = next(options["out"].glob("*/report.html")).read_text("utf-8")
    assert all(row["name"] in page for row in tried)


def test_what_is_kept_was_not_trained_twice(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept trial's figures are the run's: plain fine-tuning where no rival wins, the rival where it does."""
    for wins, place in ((False, 0), (True, -1)):
        monkeypatch.setattr(method_search, "beats", lambda rival, plain, wins=wins: wins)
        run = rekindle.fit(**{**options, "out": options["out"] / str(wins)}, method="auto")
        kept = run.result["tried"][place]
        assert (run.result["epochs"], run.result["val"]["accuracy"]) == (kept["epochs"], kept["accuracy"])
        assert (run.folder / "spec.yaml").is_file() and len(run.history) == kept["epochs"]


def test_luck_does_not_beat(tmp_path: Path) -> None:
    def run(name: str, right: str) -> Path:
        (tmp_path / name).mkdir()
        rows = "".join(f"val,{number}.jpg,{mark}\n" for number, mark in enumerate(right))
        (tmp_path / name / "predictions.csv").write_text("split,path,correct\n" + rows, encoding="utf-8")
        return tmp_path / name

    plain = run("plain", "1100000000")
    assert not beats(run("same", "1100000000"), plain)
    assert not beats(run("one", "1110000000"), plain)  # One picture more, of one that changed.
    assert beats(run("two", "1111000000"), plain)
    assert not beats(run("mixed", "0011110000"), plain)  # Four gained, two lost: 2 is below the root of 6.
    assert beats(run("more", "0011111000"), plain)  # Five gained, two lost: 3 is above the root of 7.


def test_rivals_of_a_network_without_stages() -> None:
    assert [one.options for one in candidates(0.01, [])][-1] == {"lr": pytest.approx(0.01 / 3)}
    assert candidates(0.01, ["stem", "layer1", "layer2", "layer3"])[-1].options == {"freeze": "layer1"}


def test_it_needs_validation(options: dict[str, Any]) -> None:
    for wrong in ({"val_fraction": 0.0}, {"freeze": "layer1"}):
        with pytest.raises(rekindle.UserError, match="--method auto"):
            rekindle.fit(**options, **wrong, method="auto")
