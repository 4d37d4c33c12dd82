"""`--keep mix`: the mean of where training began and ended, by hand and in whole runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rekindle
from rekindle import UserError
from rekindle.fitting.wise_ft import BLIND, GRID, mix_
from rekindle.models import build
from rekindle.models.saving import read_model
from rekindle.spec import RunSpec
from tests.toys import TINY_RUN, picture_folder, toy

OPTIONS: dict[str, Any] = {**TINY_RUN, "epochs": 2}


def ends(norm: bool = False) -> tuple[nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    model = toy(norm=norm).double()
    other = toy(1, norm=norm).double()
    if norm:
        other.train()(torch.randn(40, 4, dtype=torch.float64) + 3)
    return model, {k: v.clone() for k, v in model.state_dict().items()}, {k: v.clone() for k, v in other.state_dict().items()}


X = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_share_is_the_one_with_most_right_and_then_the_least_loss() -> None:
    model, start, end = ends()
    with torch.no_grad():
        model.load_state_dict({name: 0.3 * start[name] + 0.7 * end[name] for name in start})
        labels = model(X).argmax(1)
    found = mix_(model, start, end, list, lambda: model(X).detach(), labels)
    best = max(found.tried, key=lambda one: (one["accuracy"], -one["loss"]))
    assert found.share == best["share"] and best["accuracy"] == 1.0 and [one["share"] for one in found.tried] == list(GRID)
    assert found.logits is not None and torch.equal(found.logits, model(X))
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, (1 - found.share) * start[name] + found.share * end[name], rtol=0, atol=1e-14)


def test_without_pictures_to_choose_by_it_is_half_of_each() -> None:
    model, start, end = ends()
    found = mix_(model, start, end, list, None, torch.zeros(0))
    assert (found.share, found.tried, found.logits) == (BLIND, [], None)
    assert torch.allclose(model.state_dict()["fc.weight"], (start["fc.weight"] + end["fc.weight"]) / 2, rtol=0, atol=1e-15)


def test_batch_statistics_are_taken_anew_and_the_ends_keep_theirs() -> None:
    model, start, end = ends(norm=True)
    batches = list(X.split(10))
    labels = torch.zeros(50, dtype=torch.long)
    for grid in ((0.0,), (1.0,)):
        mix_(model, start, end, lambda: batches, lambda: model(X).detach(), labels, grid)
        kept = start if grid == (0.0,) else end
        assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items() if "running" in name)
    mix_(model, start, end, lambda: batches, lambda: model(X).detach(), labels, (0.5,))
    norm = model.body[1]  # type: ignore[index]
    hidden = [model.body[0](x) for x in batches]  # type: ignore[index, operator]
    assert torch.allclose(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), rtol=0, atol=1e-12)
    assert torch.allclose(norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0), rtol=0, atol=1e-12)
    assert norm.momentum == 0.1 and not model.training


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("data"), {"train": 6, "val": 4, "test": 2})


@pytest.mark.parametrize("batchnorm", ["batch", "frozen"])
def test_a_run_keeps_the_mean_and_predicts_with_it(folder: Path, tmp_path: Path, batchnorm: str) -> None:
    last = rekindle.fit(folder, out=tmp_path, name="last", keep="last", batchnorm=batchnorm, **OPTIONS)
    mixed = rekindle.fit(folder, out=tmp_path, name="mixed", keep="mix", batchnorm=batchnorm, **OPTIONS)
    said = mixed.result["mix"]
    share = said["share"]
    chosen = next(one for one in said["tried"] if one["share"] == share)
    assert chosen["accuracy"] == max(one["accuracy"] for one in said["tried"]) == mixed.result["val"]["accuracy"]
    assert said["tried"][-1]["accuracy"] == last.result["val"]["accuracy"]
    assert mixed.result["kept_epoch"] == (1 if share else -1)
    source, end, found = build("tiny").module.state_dict(), read_model(last.folder), read_model(mixed.folder)
    backbone = [name for name in source if source[name].shape == end[name].shape and source[name].is_floating_point()]
    stays = [name for name in backbone if batchnorm == "frozen" or share in (0, 1) or "running" not in name]
    assert len(stays) > 3
    for name in stays:
        assert torch.allclose(found[name], (1 - share) * source[name] + share * end[name], rtol=0, atol=1e-7), name
    assert mixed.predict([next((folder / "test").rglob("*.png"))])[0].classes
    assert rekindle.Run(mixed.folder).evaluate()["accuracy"] == mixed.result["test"]["accuracy"]
    if 0 < share < 1:
        assert "mixed" in (mixed.folder / "report.html").read_text("utf-8")


def test_a_fold_takes_half_of_each(folder: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "fold": "1/3", "batchnorm": "frozen"}
    mixed, last = (rekindle.fit(folder, out=tmp_path, keep=keep, **options) for keep in ("mix", "last"))
    assert mixed.result["mix"] == {"share": 0.5, "tried": []} and "val" in mixed.result
    source, end, found = build("tiny").module.state_dict(), read_model(last.folder), read_model(mixed.folder)
    for name in (name for name in source if source[name].shape == end[name].shape and source[name].is_floating_point()):
        assert torch.allclose(found[name], (source[name] + end[name]) / 2, rtol=0, atol=1e-7), name
    assert "mixed 50 to 50" in (mixed.folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("options", [{"weights": "none"}, {"head_init": "random"}, {"head_init": "zero"}])
def test_a_run_without_a_probe_to_mix_with_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--keep mix mixes with the pre-trained network and its linear probe"):
        RunSpec(data="photos", keep="mix", **options)
