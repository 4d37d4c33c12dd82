"""`--keep auto` and `--keep mix` go back to where training began, whatever methods put beside the network's layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rekindle
from rekindle import Method, Net, Run, Source
from rekindle.analysis.linear_probe import LinearProbe
from rekindle.fitting import wise_ft
from rekindle.fitting.choices import back_to_probe, own_start
from rekindle.fitting.job import _Job
from rekindle.models import build
from tests.faults.stops import stopped_at
from tests.toys import TINY_RUN, picture_folder, run_epochs, toy, toy_tuner

pytestmark = pytest.mark.filterwarnings("ignore::rekindle.RekindleWarning")  # Of so short runs.
OPTIONS: dict[str, Any] = {**TINY_RUN, "epochs": 2, "lr": 0.2, "batchnorm": "frozen"}
ADAPTERS = ["lora(rank=2)", "lora(rank=2, dora=True)"]


class Gain(nn.Module):
    """Scales its input by a learnt number, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1  # type: ignore[operator]
        return x * self.gain


class Gained(Method):
    """Puts a `Gain` into the network, and begins with other weights of a layer than its source."""

    def surgery(self, net: Net, source: Source) -> None:
        net.model.body[1] = Gain()  # type: ignore[index, operator]
        with torch.no_grad():
            net.model.body[0].weight[0] = 1.0  # type: ignore[index, union-attr]


def test_what_methods_add_or_change_goes_back_too() -> None:
    model, tuner, optimizer = toy_tuner([Gained()], toy(), epochs=2)
    own = own_start(tuner)
    assert own.keys() == {"body.0.weight", "body.1.gain", "body.1.seen"}
    start = {name: value.clone() for name, value in model.state_dict().items()}
    run_epochs(model, tuner, optimizer, tuner.scheduler(optimizer), range(2))
    assert not any(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    probe = LinearProbe(torch.ones(3, 5).double(), torch.zeros(3).double(), 0.5, 1e-3)
    back_to_probe(tuner, probe, own)
    end = model.state_dict()
    assert all(torch.equal(value, start[name]) for name, value in end.items() if not name.startswith("fc."))
    assert bool((end["fc.weight"] == 1).all())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("data"), {"train": 6, "val": 4, "test": 2})


def backbone(run: Run) -> dict[str, Tensor]:
    """Of the network that predicts, what is as large in its source."""
    source = build("tiny").module.state_dict()
    return {name: value for name, value in run.model[0].state_dict().items() if source[name].shape == value.shape}


def far(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max(float((value.double() - other[name].double()).abs().max()) for name, value in one.items())


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("stopped", [False, True])
def test_a_probe_that_is_kept_stands_on_the_network_as_it_was(
    stopped: bool, method: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.setattr(_Job, "_probe_is_better", lambda *_: True)
    options = {**OPTIONS, "method": method, "out": tmp_path}
    if stopped:
        with stopped_at(1, 1) as stop:
            rekindle.fit(folder, **options)
        run = rekindle.fit(resume=stop.folder)
    else:
        run = rekindle.fit(folder, **options)
    assert run.result["kept_epoch"] == -1 and far(backbone(run), build("tiny").module.state_dict()) < 1e-6
    assert run.result["val"]["accuracy"] == run.result["probe"]["val"]["accuracy"]


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_mixture_is_of_the_networks_not_of_the_factors(
    method: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    last = rekindle.fit(folder, out=tmp_path, keep="last", name="last", **{**OPTIONS, "method": method})
    source, end = build("tiny").module.state_dict(), backbone(last)
    assert far(end, source) > 1e-3
    for share in (0.0, 0.3, 1.0):
        monkeypatch.setattr(wise_ft.mix_, "__defaults__", ((share,),))
        mixed = rekindle.fit(folder, out=tmp_path, keep="mix", name=f"mixed{share}", **{**OPTIONS, "method": method})
        hand = {name: (1 - share) * source[name] + share * value for name, value in end.items() if value.is_floating_point()}
        assert mixed.result["mix"]["share"] == share and far(hand, backbone(mixed)) < 1e-6
        assert Run(mixed.folder).evaluate()["accuracy"] == mixed.result["test"]["accuracy"]
        assert Run(mixed.folder).predict([folder / "test"])[0].classes
