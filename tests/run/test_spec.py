"""A run's id: what counts for it and what does not."""

import dataclasses

import pytest

from rekindle.spec import RunSpec

# A run's id leaves out options at their defaults. To change one of these would give old ids another meaning: do not.
DEFAULTS = {
    "model": "resnet18", "weights": "default", "method": "l2", "direction": "plain_sum", "freeze_until": "", "epochs": 0, "lr": 0.0, "optimizer": "SGD",
    "batch_size": 32, "accumulate": 1, "image_size": 0, "per_class": 0, "val_fraction": 0.2, "test_fraction": 0.2, "flip": True, "label_smoothing": 0.0,
    "class_weights": "none", "head": "", "head_type": "auto", "read_test": True, "keep": "last", "precision": "auto", "devices": 1, "seed": 0,
}  # fmt: skip


def test_paths_do_not_count_and_contents_do() -> None:
    one = RunSpec("here", weights="a.safetensors").run_id("data", "weights")
    assert one == RunSpec("there", weights="b.safetensors").run_id("data", "weights")
    assert len({one, RunSpec("here").run_id("other", "weights"), RunSpec("here").run_id("data", "other")}) == 3


@pytest.mark.parametrize("change", [{"seed": 1}, {"method": "l2_sp"}, {"lr": 0.01}, {"flip": False}, {"per_class": 5}])
def test_every_setting_counts(change: dict[str, object]) -> None:
    assert RunSpec("x", **change).run_id("d", "w") != RunSpec("x").run_id("d", "w")  # type: ignore[arg-type]


def test_defaults_stay_what_ids_take_them_for() -> None:
    now = {field.name: field.default for field in dataclasses.fields(RunSpec)}
    assert {name: now[name] for name in DEFAULTS} == DEFAULTS
