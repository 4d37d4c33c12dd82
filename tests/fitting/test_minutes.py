"""`--minutes` trains as many epochs as fit, also where a method's steps take longer than plain ones."""

from pathlib import Path

import pytest

import rekindle
from rekindle.fitting.workload import Workload
from rekindle.registry import parse
from rekindle.spec import RunSpec
from tests.toys import TINY_RUN, picture_folder

pytestmark = pytest.mark.filterwarnings("ignore::rekindle.errors.RekindleWarning")


@pytest.mark.parametrize(
    ("recipe", "cost"),
    [
        ("l2", 1),
        ("l2+sam", 2),
        ("l2_sp+soft_targets", 1.25),
        ("l2+sam+soft_targets", 2.5),
        ("l2+tpgm", 2),
        ("l2+tpgm(every=4, iterations=2)", 1.5),
        ("l2+tpgm(every=1000, iterations=20)", 3),  # Once at the end of an epoch of ten steps.
    ],
)
def test_a_methods_cost(recipe: str, cost: float) -> None:
    found = 1.0
    for method in parse(recipe):
        found *= method.step_cost(10)
    assert found == cost


def test_a_method_that_costs_twice_trains_half_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekindle.fitting.job.seconds_per_image", lambda *_: 1.0)
    photos = picture_folder(tmp_path / "photos", {"train": 6, "val": 1})

    def epochs(method: str, minutes: float | None) -> int:
        options = {**TINY_RUN, "epochs": 40, "minutes": minutes, "method": method}
        return len(rekindle.fit(photos, out=tmp_path / "runs", **options).history)

    assert epochs("l2", None) == 40
    plain, twice = epochs("l2", 5), epochs("l2+sam", 5)
    assert 10 <= plain < 40 and twice == pytest.approx(plain / 2, abs=1)


def test_the_end_counts_what_means_of_weights_look_at() -> None:
    counts = {"train": 100, "val": 20, "test": 40}
    ending = {keep: Workload.of(RunSpec(data="photos", keep=keep), counts).ending(0.3) for keep in ("last", "mix", "average")}
    assert ending["mix"] - ending["last"] == pytest.approx(0.1 * 11 * 20)
    assert ending["average"] - ending["last"] == pytest.approx(0.1 * 100)
