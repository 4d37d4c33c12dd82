"""Our trainer is the plain loop of the documentation, to the bit; two processes are one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import rekindle
from rekindle import data, models
from rekindle.models.build import IMAGENET_MEAN, IMAGENET_STD
from rekindle.registry import parse, parse_direction
from rekindle.tuner import Tuner
from tests.toys import picture_folder
from tests.training import two_ranks

METHODS = "l2_sp+rifle(periods=2)"


PLAIN = {
    "head_lr": "tied",
    "head_init": "random",
    "batchnorm": "batch",
    "warmup": 0.0,
    "clip_norm": None,
    "augment": None,
}  # As in the papers.


def settings(root: Path) -> dict[str, Any]:
    picture_folder(root / "data", {"train": 11, "val": 3})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(models.build("cifar_resnet8", weights="none").module.state_dict(), root / "weights.safetensors")
    return {"data": str(root / "data"), "model": "cifar_resnet8", "weights": str(root / "weights.safetensors"), "method": METHODS,
            "epochs": 4, "lr": 0.02, "batch_size": 8, "precision": "32", "seed": 5, **PLAIN}  # fmt: skip


RECIPES = [
    ("l2_sp+rifle(periods=2)", "plain_sum"), ("l2_sp(alpha=0.1)", "dtnh"), ("attention_transfer(beta=10.0)", "plain_sum"),
    ("attention_transfer(beta=10.0)+l2_sp", "dtnh"), ("dropout(p=0.3)+disturb_label(gamma=0.2)", "plain_sum"),
    ("stochastic_depth+cyclic_lr(cycles=2)", "plain_sum"), ("source_classifier(gamma='mean')+layer_decay(factor=0.7)", "plain_sum"),
]  # fmt: skip


def plain_loop(options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The five lines of the documentation on the same pictures."""
    pieces = options.get("grad_accum_steps", 1)
    dataset = data.open_data(Path(options["data"]), seed=options["seed"])
    pixels = data.Pixels.load(dataset.splits["train"].paths, round(32 * 256 / 224))
    labels = dataset.splits["train"].labels
    model = models.build(options["model"], weights=options["weights"]).module
    source = rekindle.Source(model)
    with torch.random.fork_rng():
        torch.manual_seed(options["seed"])
        models.replace_classifier(model, 2)
    torch.manual_seed(options["seed"] * 1009)
    model = model.to(memory_format=torch.channels_last)
    steps = data.split_batches(22, 8, torch.arange(22))
    direction = parse_direction(options.get("direction", "plain_sum"))
    tuner = Tuner(
        model,
        parse(options["method"]),
        source=source,
        direction=direction,
        epochs=options["epochs"],
        steps_per_epoch=len(steps),
        seed=options["seed"],
    )
    tuner.prepare(lambda: [(data.eval_batch(pixels, rows, image_size=32, mean=IMAGENET_MEAN, std=IMAGENET_STD), labels[rows])
                           for rows in data.order(22, options["seed"], 0).split(8)])  # fmt: skip
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.02), momentum=0.9)
    scheduler = tuner.scheduler(optimizer)
    for epoch in range(tuner.epochs):
        tuner.start_epoch(epoch)
        for batch in data.split_batches(22, 8, data.order(22, options["seed"], epoch)):
            for rows in batch.chunk(pieces):
                x = data.train_batch(
                    pixels, rows, image_size=32, flip=True, seed=options["seed"], epoch=epoch, mean=IMAGENET_MEAN, std=IMAGENET_STD
                )
                loss = tuner.loss(model, x, labels[rows], torch.nn.functional.cross_entropy, indices=rows)
                (loss * (len(rows) / len(batch))).backward()
            tuner.gradients_()
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
    return model.state_dict()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("recipe", "direction"), RECIPES)
def test_plain_loop_equals_the_trainer_to_the_bit(recipe: str, direction: str, accumulate: int, tmp_path: Path) -> None:
    options = {**settings(tmp_path), "method": recipe, "direction": direction, "grad_accum_steps": accumulate, "epochs": 2}
    run = rekindle.fit(**options, out=tmp_path / "runs")
    trained = load_file(run.folder / "model.safetensors")
    for key, value in plain_loop(options).items():
        assert torch.equal(value, trained[key]), key


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Gloo, equal global batch, an odd last batch: weights agree to 1e-6, and heads on both ranks after each draw."""
    picture_folder(tmp_path / "data", {"train": 11, "val": 3})
    two_ranks.main(tmp_path / "data", 1, tmp_path / "one")
    command = [sys.executable, two_ranks.__file__, str(tmp_path / "data"), "2", str(tmp_path / "two")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    [single], ranks = ([load_file(path) for path in sorted((tmp_path / name).glob("rank*.safetensors"))] for name in ("one", "two"))
    assert len(ranks) == 2
    for key, value in single.items():
        assert torch.equal(ranks[0][key], ranks[1][key]), key
        assert torch.allclose(ranks[0][key], value, rtol=0, atol=1e-6), key
    assert sum(key.startswith("drawn") for key in single) == 3


@pytest.mark.parametrize(
    "extra",
    [
        {"label_smoothing": 0.1},
        {"class_weights": "balanced"},
        {"optimizer": "AdamW", "lr": 0.001},
        {"keep": "best"},
        {"head_type": "linear"},
    ],
)
def test_options_train_to_the_end(extra: dict[str, Any], tmp_path: Path) -> None:
    run = rekindle.fit(**{**settings(tmp_path), **extra, "epochs": 2}, out=tmp_path / "runs")
    assert run.result["status"] == "done"
    if extra.get("keep") == "best":
        assert run.result["kept_epoch"] == 0, "the epoch right after a restart is never kept"


def test_what_auto_chose_given_by_hand_is_the_same_run(tmp_path: Path) -> None:
    options = {name: value for name, value in settings(tmp_path).items() if name not in PLAIN}
    found = rekindle.fit(**{**options, "lr": "auto"}, out=tmp_path / "a").result
    chosen = {name: found[name] for name in ("lr", "head_lr", "head_init", "batchnorm")}
    assert found["head_init"] == "linear_probe" and found["head_lr"] != found["lr"]
    given = rekindle.fit(**{**options, **chosen}, out=tmp_path / "b").result
    assert json.dumps(found["val"]) == json.dumps(given["val"])


def test_the_head_starts_as_the_probe(tmp_path: Path) -> None:
    """With rates of next to nothing the run is the probe, whose figures stand beside it."""
    options = {**settings(tmp_path), "head_init": "linear_probe", "batchnorm": "frozen", "lr": 1e-12, "method": "l2", "epochs": 1}
    result = rekindle.fit(**options, out=tmp_path / "a").result
    assert result["val"]["accuracy"] == result["probe"]["val"]["accuracy"]
    assert result["val"]["loss"] == pytest.approx(result["probe"]["val"]["loss"], rel=1e-3)
    zero = rekindle.fit(**{**options, "head_init": "zero"}, out=tmp_path / "b").result
    assert zero["val"]["loss"] == pytest.approx(0.693147, rel=1e-4)


def test_best_may_be_the_probe(tmp_path: Path) -> None:
    options = {**settings(tmp_path), "head_init": "linear_probe", "method": "l2", "keep": "best", "epochs": 1, "lr": 10.0, "clip_norm": 1.0}
    result = rekindle.fit(**options, out=tmp_path / "a").result
    assert result["kept_epoch"] == -1
    assert result["val"]["accuracy"] == result["probe"]["val"]["accuracy"]


@pytest.mark.parametrize(("batchnorm", "lr", "better"), [("frozen", 10.0, True), ("batch", 10.0, True), ("frozen", 1e-12, False)])
def test_the_probe_is_put_back_where_it_is_better(batchnorm: str, lr: float, better: bool, tmp_path: Path) -> None:
    """At a rate of next to nothing the network stays as good as the probe, and of equals the network is kept."""
    options = {**settings(tmp_path), "head_init": "linear_probe", "method": "l2", "epochs": 1, "batchnorm": batchnorm, "clip_norm": 1.0}
    result = rekindle.fit(**{**options, "lr": lr}, out=tmp_path / "runs").result
    assert (result["kept_epoch"] == -1) == better
    assert result["val"]["accuracy"] == result["probe"]["val"]["accuracy"]
    assert any("probe" in text for text in result["cautions"]) == better


def test_a_fold_keeps_what_was_trained(tmp_path: Path) -> None:
    options = {**settings(tmp_path), "head_init": "linear_probe", "method": "l2", "epochs": 1, "lr": 10.0, "clip_norm": 1.0, "fold": "1/2"}
    assert rekindle.fit(**options, out=tmp_path / "runs").result["kept_epoch"] == 0


def test_patience(tmp_path: Path) -> None:
    """At a rate of next to nothing nothing rises; the run ends, says so, and goes on from nowhere when it is resumed."""
    options = {**settings(tmp_path), "method": "l2", "lr": 1e-12, "epochs": 9}
    run = rekindle.fit(**options, patience=3, out=tmp_path / "runs")
    assert run.result["epochs"] == len(run.history) == 4 and run.result["kept_epoch"] == 3
    (run.folder / "result.json").unlink()
    assert rekindle.fit(resume=run.folder).result["epochs"] == 4
    picture_folder(tmp_path / "without", {"train": 11})
    with pytest.raises(rekindle.UserError, match="--patience 3 chooses on validation"):
        rekindle.fit(**{**options, "data": str(tmp_path / "without")}, patience=3, val_fraction=0.0, out=tmp_path / "runs")


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """A step of SGD without momentum is then at most the rate times the norm."""
    options = {**settings(tmp_path), "method": "none", "optimizer": "ASGD", "epochs": 1, "batch_size": 22, "lr": 1e-3}
    start = load_file(options["weights"])
    for norm in (0.01, 0.1):
        run = rekindle.fit(**{**options, "clip_norm": norm}, out=tmp_path / "runs")
        end = load_file(run.folder / "model.safetensors")
        moved = sum(
            float((end[name] - start[name]).square().sum())
            for name in start
            if name in end and start[name].shape == end[name].shape and "running" not in name and "tracked" not in name
        )
        assert 0 < moved**0.5 <= 1e-3 * norm * 1.01


def test_random_weights_follow_the_seed(tmp_path: Path) -> None:
    options = {**settings(tmp_path), "weights": "none", "method": "l2", "epochs": 1}
    one, two = (rekindle.fit(**options, out=tmp_path / name) for name in ("a", "b"))
    other = rekindle.fit(**{**options, "seed": 6}, out=tmp_path / "c")
    assert one.folder.name == two.folder.name != other.folder.name
    assert one.result["val"] == two.result["val"]


def test_nan_stops_with_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(rekindle.UserError, match=r"the loss became (nan|inf) at epoch \d+, step \d+, with learning rate .* try --lr"):
        rekindle.fit(**{**settings(tmp_path), "lr": 1e12}, out=tmp_path / "runs")
