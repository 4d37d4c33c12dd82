"""What both searches have in common: their folder, their share of the time, and where the run that is kept begins."""

from pathlib import Path

import pytest

from rekindle.fitting import freeze_search
from rekindle.fitting.searching import Search
from rekindle.fitting.shared import Shared
from rekindle.spec import RunSpec
from tests.toys import picture_folder


@pytest.mark.parametrize(
    ("data", "name"), [("hf:beans", "auto-beans-s0"), ("hf:beans:small", "auto-beans-small-s0"), ("some/photos", "auto-photos-s0")]
)
def test_its_folder_is_one_everywhere(data: str, name: str) -> None:
    assert Search("auto", RunSpec(data), Path("runs"), 2).folder == Path("runs") / name
    assert Search("auto", RunSpec(data, fold="2/5"), Path("runs"), 2).folder.name == f"{name}-fold2of5"


@pytest.mark.parametrize(("anew", "runs"), [(False, 4), (True, 5)])
def test_all_runs_together_keep_to_the_limit(anew: bool, runs: int) -> None:
    search = Search("freeze", RunSpec("x", minutes=10, test_every_epoch=anew), Path("runs"), 4)
    assert search.trial().minutes == search.final().minutes == 10 / runs
    assert not search.trial().test and not search.trial().test_every_epoch and search.final().test_every_epoch == anew
    shared = search.go_on(Shared(trial=True), Path("there"))
    assert not shared.trial and shared.start == (None if anew else Path("there/checkpoints"))


def test_no_limit_stays_none() -> None:
    assert Search("freeze", RunSpec("x"), Path("runs"), 4).trial().minutes is None


def test_a_freeze_search_divides_its_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture_folder(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    told: list[float | None] = []
    train = freeze_search.execute

    def execute(spec: RunSpec, **options: object) -> object:
        told.append(spec.minutes)
        return train(spec, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(freeze_search, "execute", execute)
    spec = RunSpec(str(data), model="tiny", epochs=1, lr=0.01, batch_size=8, image_size=16, minutes=20, precision="32")
    freeze_search.search_freeze(spec, seeds=2, out=tmp_path / "runs")
    assert told == [pytest.approx(2)] * 11, "five candidates, two seeds, and the run that is kept, which goes on from its trial"
