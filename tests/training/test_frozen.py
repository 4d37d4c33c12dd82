"""Frozen layers are computed once: the weights are those of a run that computes them at each step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import rekindle
from rekindle import models
from rekindle.registry import parse
from rekindle.training import frozen
from rekindle.training.frozen import FrozenPart, Stored, find_boundary
from rekindle.tuner import Tuner
from tests.faults.stops import stopped_at
from tests.toys import Notes, picture_folder

RECIPES = {
    "freeze(until='layer1')": "layer1",
    "freeze(until='stem')": "bn1",
    "l2_sp+freeze(until='layer2')": "layer2",
    "rifle(periods=2)+freeze(until='layer1')": "layer1",
    "dropout(p=0.3)+disturb_label(gamma=0.2)+freeze(until='layer1')": "layer1",
    "lp_ft(strengths=3)+freeze(until='layer2')": "layer2",
    "bss+freeze(until='layer1')": "layer1",
}
OTHERWISE = {  # What is stored of them is less, or nothing, but the weights are the same.
    "soft_targets+freeze(until='layer1')": "layer1 are computed once for 8 validation pictures",
    "feature_maps+freeze(until='layer1')": "",
    "l2+sam+freeze(until='layer1')": "",
    "l2+mixout(p=0.5)+freeze(until='layer1')": "",
    "stoch_norm+freeze(until='layer1')": "up to conv1 are computed once",
    "stochastic_depth+freeze(until='layer2')": "",
    "freeze(until='layer1',norm='train')": "up to conv1 are computed once for 44 views",
}


def options(root: Path, recipe: str, **given: Any) -> dict[str, Any]:
    if not (root / "data").exists():
        picture_folder(root / "data", {"train": 11, "val": 4, "test": 2})
        with torch.random.fork_rng():
            torch.manual_seed(3)
            save_file(models.build("cifar_resnet8", weights="none").module.state_dict(), root / "weights.safetensors")
    return {"data": str(root / "data"), "model": "cifar_resnet8", "weights": str(root / "weights.safetensors"), "method": recipe,
            "epochs": 4, "lr": 0.02, "batch_size": 8, "precision": "32", "seed": 5, "views": 2, **given}  # fmt: skip


def trained(root: Path, name: str, listener: Any = None, **given: Any) -> tuple[dict[str, Tensor], rekindle.Run]:
    run = rekindle.fit(**options(root, **given), out=root / name, listener=listener)
    return load_file(run.folder / "model.safetensors"), run


def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenPart, "look", lambda *_: False)


@pytest.mark.parametrize("recipe", RECIPES)
def test_equal_weights_with_and_without(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    stored, run = trained(tmp_path, "stored", Notes(notes), recipe=recipe)
    assert any(f"up to {RECIPES[recipe]} are computed once for 44 views of training pictures and 8 validation" in text for text in notes)
    uncached(monkeypatch)
    computed, other = trained(tmp_path, "computed", recipe=recipe)
    for name, value in computed.items():
        assert torch.allclose(value, stored[name], rtol=0, atol=1e-6), name
    assert run.result["val"]["loss"] == pytest.approx(other.result["val"]["loss"], abs=1e-5)


@pytest.mark.parametrize("given", [{"direction": "dtnh", "recipe": "l2_sp+freeze(until='layer1')"}, {"grad_accum_steps": 2}, {"ema": 0.9},
                                   {"optimizer": "AdamW", "lr": 0.001}, {"precision": "bf16"}, {"keep": "best"}, {"record": "gradient_norms"},
                                   {"augment": "color_jitter"}, {"views": None}, {"test_every_epoch": True}], ids=str)  # fmt: skip
def test_with_other_options(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"recipe": "freeze(until='layer1')", **given}
    notes: list[str] = []
    stored, run = trained(tmp_path, "stored", Notes(notes), **given)
    assert any("computed once" in text for text in notes)
    uncached(monkeypatch)
    computed, other = trained(tmp_path, "computed", **given)
    for name, value in computed.items():
        assert torch.allclose(value, stored[name], rtol=0, atol=1e-6), name
    losses = [[line["val"]["loss"] for line in one.history] for one in (run, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("recipe", OTHERWISE)
def test_what_draws_or_needs_the_pictures_is_computed_each_time(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    stored, _ = trained(tmp_path, "stored", Notes(notes), recipe=recipe, batchnorm="batch")
    assert any(OTHERWISE[recipe] in text for text in notes)
    uncached(monkeypatch)
    computed, _ = trained(tmp_path, "computed", recipe=recipe, batchnorm="batch")
    assert all(torch.allclose(value, stored[name], rtol=0, atol=1e-6) for name, value in computed.items())


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (2, 1), (3, 0)])
def test_a_resumed_run_ends_in_the_same_bits(epoch: int, step: int, tmp_path: Path) -> None:
    whole, run = trained(tmp_path, "whole", recipe="l2_sp+freeze(until='layer1')")
    with stopped_at(epoch, step) as stop:
        trained(tmp_path, "stopped", recipe="l2_sp+freeze(until='layer1')")
    again = rekindle.fit(resume=stop.folder)
    found = load_file(again.folder / "model.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in whole.items())
    assert again.history[-1]["val"] == run.history[-1]["val"]


def test_no_more_is_stored_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(frozen, "LIMIT", 2**20)
    trained(tmp_path, "some", Notes(notes), recipe="freeze(until='layer1')")
    assert [
        text for text in notes if "computed once for 8 validation pictures" in text and "views of training pictures would take more" in text
    ]
    monkeypatch.setattr(frozen, "LIMIT", 1)
    trained(tmp_path, "none", Notes(notes), recipe="freeze(until='layer1')")
    assert "are computed each time" in notes[-1] or any("are computed each time" in text for text in notes)


def test_views_are_shown_in_turn(tmp_path: Path) -> None:
    notes: list[str] = []
    trained(tmp_path, "new", Notes(notes), recipe="freeze(until='layer1')", views=None)
    assert any("--views 4" in text for text in notes)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:squeezenet1_0", "torchvision:mobilenet_v2", "torchvision:shufflenet_v2_x0_5",
                                  "torchvision:densenet121", "torchvision:swin_t", "torchvision:convnext_tiny", "resnet18", "vit_tiny_patch16_224",
                                  "tf_efficientnet_lite0"])  # fmt: skip
def test_boundaries_of_real_networks(name: str) -> None:
    """Each stage of each network has a boundary at or after it, from which the network goes on to the same bits."""
    size = 224 if "vit" in name else 64
    torch.manual_seed(0)
    model = models.build(name, weights="none").module
    x = torch.randn(4, 3, size, size).to(memory_format=torch.channels_last)
    stages = list(models.stages(model, models.find_classifier(model)))
    for until in (stages[0], stages[len(stages) // 2], stages[-1]):
        twin = models.build(name, weights="none").module.to(memory_format=torch.channels_last)
        Tuner(twin, parse(f"freeze(until={until!r})"), epochs=1, steps_per_epoch=1)
        before = {key: value.clone() for key, value in twin.state_dict().items()}
        boundary = find_boundary(twin, twin, x)
        assert boundary is not None, until
        assert all(torch.equal(value, before[key]) for key, value in twin.state_dict().items())
        stored = Stored(boundary, 4, x.device)
        stored.put(0, boundary.reach(twin.eval(), x))
        rows = torch.tensor([2, 0, 1, 3])
        with torch.no_grad():
            assert torch.allclose(boundary.go_on(twin, stored.take(rows), x[:0]), twin(x[rows]), atol=1e-5)


class Skips(nn.Module):
    """Its head reads the stem's output beside the body's, or the pictures themselves."""

    def __init__(self, around: str) -> None:
        super().__init__()
        self.around = around
        self.stem, self.body, self.fc = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        low = self.stem(x)
        high = self.body(low)
        return self.fc(high + {"stem": low, "pictures": x, "nothing": 0.0}[self.around])


@pytest.mark.parametrize(("around", "frozen_parts", "found"), [
    ("nothing", ("stem",), "stem"), ("nothing", ("stem", "body"), "body"), ("stem", ("stem",), "stem"), ("stem", ("stem", "body"), "stem"),
    ("pictures", ("stem", "body"), None), ("nothing", (), None), ("nothing", ("body",), None),
])  # fmt: skip
def test_a_boundary_stands_for_all_before_it(around: str, frozen_parts: tuple[str, ...], found: str | None) -> None:
    model = Skips(around)
    for name in frozen_parts:
        model.get_submodule(name).requires_grad_(False)
    boundary = find_boundary(model, model, torch.randn(4, 4))
    assert (None if boundary is None else boundary.name) == found


@pytest.mark.parametrize("part", [nn.Dropout(0.1), nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False)])
def test_no_boundary_behind_what_draws_or_follows_the_batch(part: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), part, nn.Linear(4, 4), nn.Linear(4, 3))
    model[:3].requires_grad_(False)
    boundary = find_boundary(model, model, torch.randn(4, 4))
    assert boundary is not None
    assert boundary.name == "0"


def test_hooks_in_the_frozen_part_see_every_batch() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[:2].requires_grad_(False)
    model[1].register_forward_hook(lambda *_: None)
    boundary = find_boundary(model, model, torch.randn(4, 4))
    assert boundary is not None
    assert boundary.name == "0"


def test_activations_are_forgotten_when_weights_change_or_train_again() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    model[:2].requires_grad_(False)
    x = torch.randn(6, 4)
    part = FrozenPart(model, model, x.device)

    def known() -> Tensor | None:
        part.look(lambda count: x[:count], {"pictures": 6})
        stored = part.stored("pictures", "", 6, lambda rows: x[rows], training=True)
        return None if stored is None else part.go_on(stored.take(torch.arange(6)))

    for change in (lambda: None, lambda: model[0].weight.data.mul_(2), lambda: model[1].requires_grad_(True)):
        change()
        found = known()
        assert found is not None
        assert torch.equal(found, model(x))
    model.requires_grad_(True)
    assert known() is None
