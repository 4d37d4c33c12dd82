"""`--keep average`: the mean of the last quarter of the epochs by hand, BatchNorm's statistics anew, restarts, and resuming to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rekindle
from rekindle.errors import UserError
from rekindle.method import Clock
from rekindle.spec import RunSpec
from rekindle.training.epoch_mean import EpochMean, HeldCosine, first_averaged
from rekindle.training.trainer import Training
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.stops import stopped_at
from tests.toys import Notes, picture_folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = picture_folder(tmp_path_factory.mktemp("means") / "data", {"train": 10, "val": 3, "test": 3})
    return {
        "data": str(data), "model": "tiny", "image_size": 32, "epochs": 9, "lr": 0.02, "batch_size": 8, "precision": "32", "method": "l2",
        "keep": "average", "workers": 0, "device": "cpu",
    }  # fmt: skip


@pytest.mark.parametrize(("epochs", "first"), [(1, 0), (2, 0), (4, 2), (9, 7), (40, 30)])
def test_the_last_quarter_counts_at_a_rate_that_stays(epochs: int, first: int) -> None:
    assert first_averaged(epochs) == first
    rates = [HeldCosine().lr_factor("head", Clock(epoch, epochs, 0, 3, seed=0)) for epoch in range(epochs)]
    assert rates[first:] == pytest.approx([rates[first]] * (epochs - first)) and rates[:first] == sorted(rates[:first], reverse=True)


@pytest.mark.parametrize("batchnorm", ["frozen", "batch"])
def test_it_is_the_mean_by_hand(batchnorm: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[dict[str, torch.Tensor]] = []
    save = Training._save_if_due

    def seen(self: Training, epoch: int) -> None:
        ends.append({name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()})
        save(self, epoch)

    monkeypatch.setattr(Training, "_save_if_due", seen)
    run = rekindle.fit(**options, batchnorm=batchnorm, out=tmp_path)
    found, last = load_file(run.folder / "model.safetensors"), ends[7:]
    assert len(ends) == 9 and run.result["averaged"] == 2
    statistics = [name for name in found if "running" in name]
    for name, value in found.items():
        if value.is_floating_point() and (batchnorm == "frozen" or name not in statistics):
            assert torch.allclose(value, torch.stack([end[name] for end in last]).double().mean(0).float(), rtol=0, atol=1e-7), name
    changed = [name for name in statistics if not torch.equal(found[name], last[-1][name])]
    assert changed == ([] if batchnorm == "frozen" else statistics)
    again = run.evaluate()
    assert again["accuracy"] == pytest.approx(run.result["test"]["accuracy"])
    assert "the last 2 epochs, averaged" in (run.folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("epoch", "step"), [(7, 0), (8, 1)])
def test_a_stopped_run_goes_on_to_the_bit(epoch: int, step: int, options: dict[str, Any], tmp_path: Path) -> None:
    whole = rekindle.fit(**options, out=tmp_path / "whole")
    with stopped_at(epoch, step) as stop:
        rekindle.fit(**options, out=tmp_path / "stopped")
    assert_equal_runs(rekindle.fit(resume=stop.folder).folder, whole.folder, len(whole.history))


def test_it_begins_anew_at_a_restart() -> None:
    mean = EpochMean()
    for value in (1.0, 2.0, 6.0):
        mean.add({"w": torch.tensor([value]), "count": torch.tensor(int(value))})
    assert mean.weights({"w": torch.zeros(1)}) == {"w": torch.tensor([3.0]), "count": torch.tensor(6)}
    mean.begin_anew()
    mean.add({"w": torch.tensor([5.0])})
    assert mean.weights({"w": torch.zeros(1)}) == {"w": torch.tensor([5.0])}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("cyclic_lr", ["cyclic_lr sets that of the backbone and the head, which may change to the end"]),
        ("l2+rifle(periods=2)", ["rifle sets that of the head, which may change to the end"]),
        ("l2", []),
    ],
)
def test_a_rate_that_a_method_sets_is_told_of(method: str, said: list[str], options: dict[str, Any], tmp_path: Path) -> None:
    notes = Notes()
    rekindle.fit(**{**options, "method": method, "epochs": 4}, out=tmp_path, listener=notes)
    found = [note for note in notes.kept if note.startswith("--keep average")]
    assert len(found) == len(said) and all(text in note for text, note in zip(said, found, strict=True))


def test_a_run_that_ends_before_there_is_a_mean_says_so(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "_has_stalled", lambda self: len(self.history) == 3)
    with pytest.warns(rekindle.RekindleWarning, match="--patience ended the run"):
        run = rekindle.fit(**options, patience=1, out=tmp_path)
    [said] = [text for text in run.result["cautions"] if "--keep average" in text]
    assert said.startswith("--patience ended the run before the last quarter of its epochs") and run.result["averaged"] == 0
    page = (run.folder / "report.html").read_text("utf-8")
    assert "those of epoch 3." in page and "averaged" not in page.split("the weights kept are")[1].split("Run ")[0]


def test_two_averages_are_refused() -> None:
    with pytest.raises(UserError, match="--keep average and --ema both average weights; give one of them"):
        RunSpec("photos", keep="average", ema=0.9)
