"""The moving average of the weights is what is measured and kept, begins anew at a restart, and goes on to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rekindle
from rekindle import models
from rekindle.cli import parser
from rekindle.errors import UserError
from rekindle.spec import EMA, RunSpec
from rekindle.training.averaging import Average
from rekindle.training.trainer import Training
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.stops import stopped_at
from tests.toys import picture_folder, toy

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("averages")
    picture_folder(root / "data", {"train": 10, "val": 3})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(models.build("tiny", weights="none").module.state_dict(), root / "weights.safetensors")
    return {
        "data": str(root / "data"), "model": "tiny", "weights": str(root / "weights.safetensors"), "image_size": 32, "epochs": 4, "lr": 0.02,
        "batch_size": 8, "precision": "32", "head_init": "random", "batchnorm": "batch", "ema": 0.9,
    }  # fmt: skip


def by_hand(states: list[State], decay: float) -> State:
    """The average of some steps' weights."""
    found = {name: tensor.clone() for name, tensor in states[0].items()}
    for steps, state in enumerate(states[1:], 1):
        now = min(decay, (1 + steps) / (10 + steps))
        found = {name: now * found[name] + (1 - now) * tensor if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return found


def assert_near(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name


def test_statistics_of_batchnorm_are_averaged_with_the_weights() -> None:
    states = [toy(seed, norm=True) for seed in range(5)]
    for number, model in enumerate(states):
        model.body[1].running_mean.fill_(float(number))
        model.body[1].num_batches_tracked.fill_(number)
    average = Average(states[0], 0.3)
    for model in states:
        average.update_parameters(model)
    plain = [dict(model.state_dict()) for model in states]
    assert_near(average.module.state_dict(), by_hand(plain, 0.3))
    assert average.module.body[1].num_batches_tracked == 4
    average.begin_anew()
    average.update_parameters(states[2])
    assert_near(average.module.state_dict(), plain[2])


@pytest.mark.parametrize(("method", "first"), [("l2+rifle(periods=2)", 6), ("l2+rifle(periods=5, unit='step')", 7)])
def test_a_run_keeps_the_average_since_the_last_restart(
    method: str, first: int, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 steps. Of draws before steps 2, 4, 6 and 8 the last is within an epoch, where the step before the draw ends with the fresh head."""
    states: list[State] = []
    step = Training._step

    def seen(self: Training, epoch: int, number: int, rows: torch.Tensor) -> None:
        step(self, epoch, number, rows)
        states.append({name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()})

    monkeypatch.setattr(Training, "_step", seen)
    run = rekindle.fit(**{**options, "method": method}, out=tmp_path)
    assert len(states) == 12
    assert_near(load_file(run.folder / "model.safetensors"), by_hand(states[first:], 0.9))
    assert run.history[-1]["val"]["accuracy"] == run.result["val"]["accuracy"]


@pytest.mark.parametrize(
    "extra", [{"method": "l2+rifle(periods=5, unit='step')", "keep": "best", "patience": 3}, {"ema": None, "patience": 3, "fold": "2/3"}]
)
def test_a_stopped_run_goes_on_to_the_bit(extra: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    whole = rekindle.fit(**{**options, **extra}, out=tmp_path / "whole")
    with stopped_at(2, 1) as stop:
        rekindle.fit(**{**options, **extra}, out=tmp_path / "stopped")
    assert_equal_runs(rekindle.fit(resume=stop.folder).folder, whole.folder, len(whole.history))


def test_a_decay_may_be_left_out() -> None:
    read = parser().parse_args
    assert read(["fit", "photos", "--ema"]).ema == EMA and read(["fit", "photos", "--ema", "0.9"]).ema == 0.9
    assert read(["fit", "photos", "--ema", "none"]).ema == "none" and RunSpec("photos").ema is None
    with pytest.raises(UserError, match="--ema must be .*, found 1.5"):
        RunSpec("photos", ema=1.5)
