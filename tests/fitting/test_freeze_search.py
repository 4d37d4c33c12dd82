"""The search for the stages to freeze: every candidate on the same budget, chosen on validation, test read once."""

import json
from pathlib import Path

import rekindle
from rekindle.fitting.freeze_search import FrozenStages, choose, search_freeze
from rekindle.records import read_spec
from rekindle.spec import RunSpec
from tests.faults.equal_runs import assert_equal_runs
from tests.toys import picture_folder

DRAWS = True


def test_the_best_mean_wins_and_of_equals_the_smaller_network() -> None:
    curve = [FrozenStages(0, "", 100, (0.5, 0.7)), FrozenStages(1, "stem", 90, (0.6, 0.6)), FrozenStages(2, "layer1", 50, (0.7, 0.4))]
    assert choose(curve).until == "stem"
    assert choose(curve[:1] + curve[2:]).until == ""


def test_search_returns_the_whole_curve(tmp_path: Path) -> None:
    picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    spec = RunSpec(str(tmp_path / "data"), model="tiny", epochs=1, lr=0.01, batch_size=8, image_size=32, freeze="auto")
    found = search_freeze(spec, seeds=2, out=tmp_path / "runs")
    assert [candidate.until for candidate in found.curve] == ["", "stem", "layer1", "layer2", "layer3"]
    trainable = [candidate.trainable for candidate in found.curve]
    assert trainable == sorted(trainable, reverse=True) and trainable[-1] == 0
    results = [json.loads(path.read_text()) for path in found.folder.glob("*/result.json")]
    assert len(results) == 10 and all("test" not in result for result in results), "no candidate reads the test split"
    assert "test" in found.run.result and found.run.result["freeze"] == (found.chosen.until or None)
    stored = json.loads((found.folder / "search.json").read_text())
    assert [row["accuracies"] for row in stored["curve"]] == [list(candidate.accuracies) for candidate in found.curve]
    assert (found.folder / "curve.png").stat().st_size > 1000
    assert not list(tmp_path.rglob("checkpoints"))


def test_what_is_kept_is_as_if_trained_alone_and_is_not_trained_twice(tmp_path: Path) -> None:
    """Candidates draw nothing and share one look at the features, and the run that is kept goes on from its trial's end."""
    picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    spec = RunSpec(str(tmp_path / "data"), model="tiny", epochs=2, batch_size=4, image_size=32, freeze="auto", precision="32")
    found = search_freeze(spec, out=tmp_path / "runs")
    until = found.chosen.until or None
    alone = rekindle.fit(**{**spec.to_dict(), "freeze": until}, out=tmp_path / "alone")
    assert_equal_runs(found.run.folder, alone.folder, epochs=2)
    trial = next(path for path in found.folder.glob("*/spec.yaml") if read_spec(path.parent).freeze == until).parent
    assert (trial / "metrics.jsonl").read_text() == (found.run.folder / "metrics.jsonl").read_text(), "also its timing"
    assert (
        not list(found.folder.glob("*/curves.svg"))
        and (found.run.folder / "curves.svg").is_file()
        and (found.run.folder / "samples.png").is_file()
    )


def test_auto_by_the_command(tmp_path: Path) -> None:
    from rekindle.cli import main

    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    assert (
        main(
            [
                "fit",
                str(tmp_path / "data"),
                "--model",
                "tiny",
                "--epochs",
                "1",
                "--image-size",
                "32",
                "--lr",
                "0.01",
                "--freeze",
                "auto",
                "--out",
                str(tmp_path / "runs"),
            ]
        )
        == 0
    )
    [folder] = [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith("freeze-")]
    assert rekindle.Run(folder).result["status"] == "done"
