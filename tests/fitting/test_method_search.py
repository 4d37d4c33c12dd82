"""`--method auto` tries a short list within its budget, and never ends below plain fine-tuning on validation."""

import json
from pathlib import Path
from typing import Any

import pytest

import rekindle
from rekindle.fitting import method_search
from rekindle.fitting.method_search import beats, candidates
from tests.toys import picture_folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("search")
    picture_folder(root / "data", {"train": 8, "val": 4, "test": 2})
    return {
        "data": str(root / "data"),
        "model": "tiny",
        "epochs": 8,
        "batch_size": 8,
        "image_size": 16,
        "out": root / "runs",
        "precision": "32",
    }


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "rival"])
def kept(request: pytest.FixtureRequest, options: dict[str, Any]) -> tuple[rekindle.Run, bool]:
    """What `--method auto` leaves, and whether a rival won."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method_search, "beats", lambda rival, plain: request.param)
        return rekindle.fit(**{**options, "out": options["out"] / str(request.param)}, method="auto"), request.param


def trials(out: Path) -> list[dict[str, Any]]:
    [folder] = out.glob("auto-*")
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/result.json"))]


def test_it_costs_at_most_two_plain_runs_and_reads_the_test_split_once(kept: tuple[rekindle.Run, bool]) -> None:
    run, _ = kept
    result, tried = run.result, run.result["tried"]
    assert [row["epochs"] for row in tried] == [8, 1, 1, 1, 1, 4]
    assert sum(row["epochs"] for row in tried) <= 2 * 8
    assert "test" in result and not any("test" in trial for trial in trials(run.folder.parent))
    page = (run.folder / "report.html").read_text("utf-8")
    assert all(row["name"] in page for row in tried)


def test_what_is_kept_was_not_trained_twice(kept: tuple[rekindle.Run, bool]) -> None:
    """The kept trial's figures are the run's: plain fine-tuning where no rival wins, the rival where it does."""
    run, rival_won = kept
    trial = run.result["tried"][-1 if rival_won else 0]
    assert (run.result["epochs"], run.result["val"]["accuracy"]) == (trial["epochs"], trial["accuracy"])
    assert (run.folder / "spec.yaml").is_file() and len(run.history) == trial["epochs"]


def test_luck_does_not_beat(tmp_path: Path) -> None:
    def run(name: str, right: str) -> Path:
        (tmp_path / name).mkdir()
        rows = "".join(f"val,{number}.jpg,a,{'ba'[int(mark)]},0.9,{mark}\n" for number, mark in enumerate(right))
        (tmp_path / name / "predictions.csv").write_text("split,path,label,prediction,confidence,correct\n" + rows, encoding="utf-8")
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


def test_random_weights_are_tried_without_a_pull_towards_them(options: dict[str, Any]) -> None:
    run = rekindle.fit(**{**options, "out": options["out"] / "random", "weights": "none"}, method="auto")
    assert [one["name"] for one in run.result["tried"]][1:4] == [
        "a rate three times as high",
        "RIFLE once it has fitted",
        "a third of the rate",
    ]


def test_it_freezes_by_itself(options: dict[str, Any]) -> None:
    with pytest.raises(rekindle.UserError, match="--method auto freezes by itself; leave out --freeze layer1"):
        rekindle.fit(**options, freeze="layer1", method="auto")


def test_the_run_that_is_kept_watches_the_test_split(options: dict[str, Any]) -> None:
    given = {**options, "epochs": 2, "out": options["out"] / "watched", "test_every_epoch": True}
    run = rekindle.fit(**given, method="auto")
    assert len(run.history) == run.result["epochs"] and all("watched_test" in line for line in run.history)
    assert not any("watched_test" in path.read_text("utf-8") for path in given["out"].glob("auto-*/*/metrics.jsonl"))
