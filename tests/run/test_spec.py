"""A run's id: what counts for it and what does not."""

from pathlib import Path

import pytest

import rekindle
from rekindle.errors import UserError
from rekindle.spec import RunOptions, RunSpec, hints, read_options

# As rekindle 0.1.0 wrote them. A run's id leaves out options at their defaults: to change one would give old ids another meaning.
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
    read = RunSpec.from_dict({"data": "x", **DEFAULTS})
    assert read == RunSpec("x", defaults="0.1") and read.identity() == {"data": "x"}


def test_the_network_of_old_ids_has_none_in_new_ones() -> None:
    """It was the default when they were made; the default of today is never part of a run, which holds a network's name."""
    assert RunSpec("x").model == "auto" and RunSpec("x", defaults="0.1").model == "resnet18"
    assert "model" not in RunSpec("x", model="resnet18").identity()
    assert RunSpec("x", model="resnet18").run_id("d", "w") != RunSpec("x", model="resnet34").run_id("d", "w")
    assert RunSpec.from_dict(RunSpec("x", model="resnet18").to_dict()).model == "resnet18"


def test_a_renamed_option_keeps_its_id() -> None:
    """The id was made by rekindle 0.1.0."""
    old = {"freeze_until": "layer2", "accumulate": 4, "watch_test": True, "record": "weight_travel"}
    new = RunSpec("x", freeze="layer2", grad_accum_steps=4, test_every_epoch=True, record="weight_distance", defaults="0.1")
    assert RunSpec.from_dict({"data": "x", **DEFAULTS, **old}) == new == RunSpec.from_dict(new.to_dict())
    assert new.identity() == {"data": "x", **old}
    assert new.run_id("d", "w") == "18444a835e05"


def test_a_word_stands_where_the_choice_is_left_open() -> None:
    words = RunSpec("x", lr="auto", epochs="auto", per_class="all", freeze="none")  # type: ignore[arg-type]
    assert words == RunSpec("x") and words.lr is None
    assert (words.to_dict()["lr"], words.to_dict()["fraction"], words.to_dict()["freeze"]) == ("auto", "all", "none")


@pytest.mark.parametrize(
    ("option", "value"), [("lr", 0), ("epochs", 2.5), ("seed", True), ("keep", "first"), ("fraction", 1.5), ("val_fraction", "0.2")]
)
def test_a_value_that_is_not_allowed_is_named(option: str, value: object) -> None:
    with pytest.raises(UserError) as refused:
        RunSpec("x", **{option: value})  # type: ignore[arg-type]
    assert f"--{option.replace('_', '-')} " in str(refused.value) and repr(value) in str(refused.value)


def test_keyword_arguments_of_fit_are_the_fields() -> None:
    """An editor completes `RunOptions`; it may not lag behind."""
    assert RunOptions.__annotations__.keys() == hints(RunSpec).keys() - {"data", "method", "direction"}


def test_a_misspelt_option_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean epochs"):
        rekindle.fit("x", epoch=3)  # type: ignore[call-arg]
    (tmp_path / "options.yaml").write_text("epochs: 3\nweigths: none\n")
    with pytest.raises(UserError, match="did you mean weights"):
        read_options(tmp_path / "options.yaml")


def test_runs_of_both_defaults_differ(tmp_path: Path) -> None:
    """What "auto" means has changed since 0.1.0, so a run by today's rules is another run."""
    assert RunSpec("x").run_id("d", "w") != RunSpec("x", defaults="0.1").run_id("d", "w")
    assert RunSpec.from_dict(RunSpec("x").to_dict()) == RunSpec("x")
