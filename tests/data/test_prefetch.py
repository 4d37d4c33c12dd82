"""Threads that work ahead change nothing but the time."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rekindle
from rekindle.data import Pixels
from rekindle.data.prefetch import choose_workers, prefetch
from rekindle.data.samples import Preprocessing, Samples
from tests.faults.stops import stopped_at
from tests.toys import picture_folder

WORKERS = [0, 1, 2, 4]
EVERYTHING = "randaugment+color_jitter(hue=0.1)+random_erasing(p=0.5)+mixup(alpha=1.0)+cutmix"


@pytest.mark.parametrize("workers", WORKERS)
def test_results_come_in_order_whoever_is_slow(workers: int) -> None:
    def slow(item: int) -> int:
        time.sleep(0.01 * (item % 3 == 0))
        return item * item

    assert list(prefetch(slow, range(20), workers)) == [item * item for item in range(20)]
    assert list(prefetch(slow, [], workers)) == []


@pytest.mark.parametrize("workers", WORKERS)
def test_what_a_worker_raises_is_raised_in_its_turn(workers: int) -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise rekindle.UserError("the fourth is bad")
        return item

    found = []
    with pytest.raises(rekindle.UserError, match="the fourth is bad"):
        found.extend(prefetch(fail, range(9), workers))
    assert found == [0, 1, 2]


@pytest.mark.parametrize("workers", WORKERS[1:])
def test_it_works_ahead_by_an_item_a_worker_and_no_more(workers: int) -> None:
    taken: list[int] = []
    feed = prefetch(lambda item: item, (taken.append(item) or item for item in range(50)), workers)
    for done in range(5):
        next(feed)
        assert len(taken) == done + 1 + workers
    feed.close()


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    feed = prefetch(lambda item: item, range(100), 4)
    next(feed)
    assert threading.active_count() == before + 4
    feed.close()
    assert threading.active_count() == before


def test_workers_use_one_core_each_and_leave_the_network_its_own() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert set(prefetch(lambda item: torch.get_num_threads(), range(8), 2)) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_default_leaves_a_core_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, wanted in ((1, (0, 0)), (2, (1, 1)), (16, (1, 4))):
        monkeypatch.setattr("os.sched_getaffinity", lambda process, cores=cores: set(range(cores)), raising=False)
        assert (choose_workers(torch.device("cpu")), choose_workers(torch.device("cuda"))) == wanted


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = picture_folder(tmp_path_factory.mktemp("prefetch") / "data", {"train": 9, "val": 4}, size=48)
    return {"data": str(data), "model": "cifar_resnet8", "weights": "none", "method": "l2+dropout(p=0.3)", "epochs": 2, "lr": 0.02,
            "batch_size": 4, "image_size": 32, "precision": "32", "seed": 2, "augment": EVERYTHING}  # fmt: skip


@pytest.fixture(scope="module")
def reference(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Neither cache nor threads."""
    return rekindle.fit(**options, out=tmp_path_factory.mktemp("plain"), cache=False, workers=0).folder


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "timing"} for line in found]


def assert_equal(one: Path, other: Path) -> None:
    assert one.name == other.name
    assert lines(one) == lines(other)
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text()


@pytest.mark.parametrize(("workers", "cache"), [(0, True), (1, True), (2, False), (4, True), (None, True)])
def test_a_run_is_the_same_to_the_bit(workers: int | None, cache: bool, options: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    """With dropout, whose draws from torch's global generator no worker may disturb, and with every augmentation."""
    run = rekindle.fit(**options, out=tmp_path, cache=cache, workers=workers)
    assert_equal(run.folder, reference)
    timing = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])["timing"]
    assert 0 < timing["data_seconds"] < timing["seconds"]


def test_micro_batches_come_in_their_order(options: dict[str, Any], tmp_path: Path) -> None:
    folders = [
        rekindle.fit(**{**options, "grad_accum_steps": 2, "epochs": 1}, out=tmp_path / str(workers), workers=workers).folder
        for workers in (0, 2)
    ]
    assert_equal(*folders)


def test_ctrl_c_and_resume_with_another_number_of_workers(options: dict[str, Any], reference: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    with stopped_at(1, 1) as stop:
        rekindle.fit(**options, out=tmp_path, workers=4)
    assert threading.active_count() == before
    assert_equal(rekindle.fit(resume=stop.folder, workers=1).folder, reference)


def test_an_error_in_a_worker_ends_the_run_with_its_message(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Samples.training
    calls = []

    def failing(self: Samples, *arguments: Any) -> Any:
        calls.append(threading.current_thread() is threading.main_thread())
        if not calls[-1]:
            raise OSError("the disk went away")
        return make(self, *arguments)

    monkeypatch.setattr(Samples, "training", failing)
    before = threading.active_count()
    with pytest.raises(OSError, match="the disk went away"):
        rekindle.fit(**options, out=tmp_path, workers=2)
    assert threading.active_count() == before


def test_a_negative_number_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(rekindle.UserError, match="--workers must be a whole number of at least 0 .*found -1"):
        rekindle.fit(**options, out=tmp_path, workers=-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("workers", WORKERS)
def test_batches_are_made_on_the_gpu_and_are_those_of_the_processor(workers: int, options: dict[str, Any]) -> None:
    paths = sorted(Path(options["data"]).rglob("*.png"))
    rows = torch.arange(len(paths))
    samples = Samples(Pixels.load(paths, 37), rows, rows % 2, Preprocessing(32, (0.5,) * 3, (0.2,) * 3))
    parts = rows.split(5)
    made = list(prefetch(lambda rows: samples.training(rows, 0, 1, "cuda"), parts, workers))
    for rows, (x, y) in zip(parts, made, strict=True):
        wanted, labels = samples.training(rows, 0, 1)
        assert x.device.type == y.device.type == "cuda"
        torch.testing.assert_close(x.cpu(), wanted, rtol=0, atol=1e-6)
        assert torch.equal(y.cpu(), labels)
        torch.testing.assert_close(samples.evaluation(rows, "cuda").cpu(), samples.evaluation(rows), rtol=0, atol=1e-6)
