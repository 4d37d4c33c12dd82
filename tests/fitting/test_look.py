"""One look at the features serves whoever wants them, and says which statistics suit BatchNorm."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rekindle
from rekindle.analysis.ranking import features_of
from rekindle.fitting import look as look_module
from rekindle.fitting.look import Look, batchnorm_for, chosen_rows, look_at
from tests.toys import picture_folder

CPU = torch.device("cpu")


class Fake:
    """Samples whose pictures are noise around their class's colour."""

    def __init__(self, count: int, classes: int = 3) -> None:
        stream = torch.Generator().manual_seed(0)
        self.labels = torch.arange(count) % classes
        self.x = torch.randn(count, 3, 8, 8, generator=stream) + self.labels[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def evaluation(self, rows: torch.Tensor, device: Any = CPU) -> torch.Tensor:
        return self.x[rows]


def network(mean: float = 0.0) -> nn.Module:
    """A convolution, BatchNorm whose running mean is `mean` off, ReLU, pooling, a classifier."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    nn.init.constant_(model[1].running_mean, mean)
    return model


def test_every_class_is_looked_at_though_not_every_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_module, "MOST", 10)
    samples = Fake(60, 3)
    samples.labels[:] = 0
    samples.labels[57], samples.labels[3] = 1, 2
    rows = chosen_rows(samples.labels, 0)  # type: ignore[arg-type]
    assert len(rows) == 10 == len(set(rows.tolist())) and set(samples.labels[rows].tolist()) == {0, 1, 2}


def test_it_sees_the_features_in_evaluation_mode_and_puts_the_mode_back() -> None:
    model, samples = network().train(), Fake(30)
    seen = look_at(model, samples, 0, CPU)  # type: ignore[arg-type]
    assert model.training and seen.features.shape == (30, 16)
    wanted, _ = features_of(model, samples, rows=chosen_rows(samples.labels, 0), device=CPU)  # type: ignore[arg-type]
    assert torch.equal(seen.features, torch.from_numpy(wanted))
    assert seen.mean_square == pytest.approx(float((wanted**2).sum(1).mean()))


def test_statistics_that_blind_the_network_are_given_up() -> None:
    """A running mean far above every activation leaves nothing behind the ReLU."""
    samples = Fake(60)
    found = {}
    for mean in (0.0, 1e4):
        model = network(mean)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        seen: Look = look_at(model, samples, 0, CPU)  # type: ignore[arg-type]
        found[mean] = batchnorm_for(model, samples, seen, 0, CPU, 20)  # type: ignore[arg-type]
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert found[1e4] == "batch" and found[0.0] in ("frozen", "batch")
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    assert batchnorm_for(bare, samples, look_at(bare, samples, 0, CPU), 0, CPU, 20) == "batch"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("accuracy", "loss", "wanted"), [(0.9, 1.3, "frozen"), (0.1, 0.5, "batch"), (0.9, None, "frozen"), (0.4, 1.0, "batch")]
)
def test_statistics_are_chosen_by_the_loss_and_not_by_a_lucky_accuracy(
    monkeypatch: pytest.MonkeyPatch, accuracy: float, loss: float | None, wanted: str
) -> None:
    """Waste, sixty pictures: 58 % with the batch's statistics and 57 without, at losses of 1.29 and 0.98; fine-tuned, nine points lost."""
    samples = Fake(30)
    seen = look_at(network(), samples, 0, CPU)  # type: ignore[arg-type]
    seen = replace(seen, probe=replace(seen.probe, accuracy=0.5, loss=0.9))
    monkeypatch.setattr(look_module, "fit_probe", lambda *a, **k: replace(seen.probe, accuracy=accuracy, loss=loss))
    assert batchnorm_for(network(), samples, seen, 0, CPU, 20) == wanted  # type: ignore[arg-type]


def test_lp_ft_takes_the_features_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rekindle.methods.heads import lp_ft

    seen = []
    collect = lp_ft.collect_features
    monkeypatch.setattr(lp_ft, "collect_features", lambda net, data: seen.append(data.features) or collect(net, data))
    picture_folder(tmp_path / "data", {"train": 8, "val": 3})
    rekindle.fit(tmp_path / "data", model="tiny", method="lp_ft(strengths=3)", epochs=1, batch_size=8, out=tmp_path / "runs")
    [(features, labels)] = seen
    assert features.shape[0] == len(labels) == 16


@pytest.mark.parametrize("weights", ["none", "file"])
def test_a_size_that_the_network_cannot_take_is_told(weights: str, tmp_path: Path) -> None:
    """Before training, with pre-trained weights and with random ones; nothing is left behind."""
    from safetensors.torch import save_file

    from rekindle import models

    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    name = "torchvision:squeezenet1_0"
    if weights == "file":
        weights = str(tmp_path / "w.safetensors")
        save_file(models.build(name, weights="none").module.state_dict(), weights)
    with pytest.raises(rekindle.UserError, match=r"squeezenet1_0.* 8 x 8 .*--image-size 224"):
        rekindle.fit(tmp_path / "data", model=name, weights=weights, image_size=8, epochs=1, batch_size=4, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.3}, {"augment": "mixup"}], ids=str)
def test_the_rate_is_measured_with_a_loss_that_can_fall_to_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    from rekindle.fitting import job

    least = []

    def measure(model: nn.Module, names: list[str], x: Tensor, y: Tensor, criterion: Any, autocast: Any) -> tuple[float, float]:
        least.append(float(criterion(1e3 * nn.functional.one_hot(y, 2).float(), y)))
        return 1.0, 50.0

    monkeypatch.setattr(job, "loss_and_square", measure)
    picture_folder(tmp_path / "data", {"": 8})
    run = rekindle.fit(tmp_path / "data", model="tiny", epochs=1, image_size=32, batch_size=8, out=tmp_path / "runs", **options)
    assert run.result["lr"] == 0.005 and len(least) == 2 and max(least) < 1e-6
