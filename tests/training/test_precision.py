"""The number format of a run: by what the machine multiplies in hardware, and by measurement where that does not decide."""

from pathlib import Path

import pytest
import torch
from torch import nn

from rekindle.training import precision
from rekindle.training.precision import automatic_precision, kept_speeds, measured_speeds

GROUPED = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.Dropout())


@pytest.fixture(autouse=True)
def processor_with_bfloat16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))


def test_what_is_not_grouped_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measured_speeds", None)
    assert automatic_precision(nn.Conv2d(4, 4, 3), 32) == "bf16"
    assert automatic_precision(GROUPED) == "32"


@pytest.mark.parametrize(("bf16", "float32", "expected"), [(1.0, 2.0, "bf16"), (2.0, 1.0, "32"), (1.0, 1.0, "32")])
def test_grouped_convolutions_take_what_is_faster(monkeypatch: pytest.MonkeyPatch, bf16: float, float32: float, expected: str) -> None:
    monkeypatch.setattr(precision, "measured_speeds", lambda *_: {"bf16": bf16, "float32": float32})
    assert automatic_precision(GROUPED, 32) == expected


def test_a_machine_without_bfloat16_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False, raising=False)
    assert automatic_precision(nn.Conv2d(4, 4, 3), 32) == "32"


def test_measuring_changes_neither_network_nor_random_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6), nn.Dropout()).train()
    model[1].eval()
    before, stream = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    speeds = measured_speeds(model, 8)
    assert all(seconds > 0 for seconds in speeds.values())
    assert [part.training for part in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters()) and torch.equal(stream, torch.get_rng_state())


def test_a_network_is_measured_once_a_size_and_again_where_the_file_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(precision, "measured_speeds", lambda _, size: sizes.append(size) or {"bf16": 1.0, "float32": 2.0})
    first, again, other = kept_speeds(GROUPED, 32), kept_speeds(GROUPED, 32), kept_speeds(GROUPED, 64)
    assert first == again == other and sizes == [32, 64]
    for path in (tmp_path / "precision").iterdir():
        path.write_text("{")
    assert kept_speeds(GROUPED, 32) == first and sizes == [32, 64, 32]


def test_a_home_that_cannot_be_written_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "file"))
    assert automatic_precision(GROUPED, 8) in ("bf16", "32")


def test_a_processor_beside_a_gpu_is_asked_what_it_can_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    for check in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False, raising=False)
    found = {device: automatic_precision(nn.Conv2d(4, 4, 3), 32, device) for device in ("auto", "cuda", "cpu")}
    assert found == {"auto": "bf16", "cuda": "bf16", "cpu": "32"}
