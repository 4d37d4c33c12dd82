"""What a run writes down of itself: the right numbers, the same after a resume, and no trace in the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import rekindle
from rekindle import models
from rekindle.analysis.gradient_norms import GradientNorms
from rekindle.analysis.recorders import recorders
from rekindle.analysis.weight_distance import relative, weight_distance
from rekindle.method import Net, Source
from rekindle.models.structure import watched_layers
from rekindle.spec import RunSpec
from rekindle.tuner import Tuner
from tests.faults.stops import stopped_at
from tests.toys import picture_folder, toy, toy_batch, toy_tuner

ALL = {"record": "gradient_norms,weight_distance", "test_every_epoch": True}
RESNET = ["layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("recorders")
    picture_folder(root / "data", {"train": 10, "val": 3, "test": 4})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_file(models.build("cifar_resnet8", weights="none").module.state_dict(), root / "weights.safetensors")
    weights = str(root / "weights.safetensors")
    return {"data": str(root / "data"), "model": "cifar_resnet8", "weights": weights, "method": "l2_sp+rifle(periods=2)",
            "epochs": 4, "lr": 0.02, "batch_size": 8, "precision": "32", "seed": 1, "augment": None}  # fmt: skip


@pytest.fixture(scope="module")
def watched(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> rekindle.Run:
    return rekindle.fit(**options, **ALL, out=tmp_path_factory.mktemp("watched"))


def bare(lines: list[dict[str, Any]], *gone: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in ("timing", *gone)} for line in lines]


def weights_of(run: rekindle.Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "model.safetensors")


def net_of(model: nn.Module) -> Net:
    head = models.find_classifier(model)
    return Net(model, tuple(head), {name: name for name, _ in model.named_parameters()}, models.stages(model, head))


def test_recording_changes_no_bit_and_chooses_nothing(options: dict[str, Any], watched: rekindle.Run, tmp_path: Path) -> None:
    plain = rekindle.fit(**options, out=tmp_path)
    for key, value in weights_of(plain).items():
        assert torch.equal(value, weights_of(watched)[key]), key
    assert bare(plain.history) == bare(watched.history, "analysis", "watched_test")
    assert plain.result["val"] == watched.result["val"] and plain.result["test"] == watched.result["test"]


def test_watching_the_test_split_does_not_move_the_best_epoch(options: dict[str, Any], tmp_path: Path) -> None:
    kept = {}
    for watch in (True, False):
        run = rekindle.fit(**{**options, "keep": "best", "method": "l2", "head_init": "random"}, test_every_epoch=watch, out=tmp_path)
        kept[watch] = run.result["kept_epoch"]
        accuracies = [line["val"]["accuracy"] for line in run.history]
        assert kept[watch] == accuracies.index(max(accuracies))
    assert kept[True] == kept[False]


def test_the_last_watched_figures_are_those_of_the_result(watched: rekindle.Run) -> None:
    last, result = watched.history[-1]["watched_test"], watched.result["test"]
    assert last["accuracy"] == pytest.approx(result["accuracy"]) and last["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert len({line["watched_test"]["loss"] for line in watched.history}) == 4


def test_travel_at_the_end_is_that_of_the_stored_weights(options: dict[str, Any], watched: rekindle.Run) -> None:
    start = load_file(options["weights"])
    end = weights_of(watched)
    names = [name for name, _ in models.build("cifar_resnet8", weights="none").module.named_parameters() if not name.startswith("linear")]
    wanted = weight_distance({name: end[name] for name in names}, start)
    found = watched.history[-1]["analysis"]["weight_distance"]
    assert found.keys() == wanted.keys() and "linear" not in found
    for layer, values in found.items():
        assert values == pytest.approx(wanted[layer]), layer
    path = [relative(line["analysis"]["weight_distance"]) for line in watched.history]
    assert 0 < path[0] < path[-1]


def test_mid_epoch_resume_forgets_nothing(options: dict[str, Any], watched: rekindle.Run, tmp_path: Path) -> None:
    with stopped_at(2, 0) as stop:
        rekindle.fit(**options, **ALL, out=tmp_path)
    resumed = rekindle.fit(resume=stop.folder)
    assert bare(resumed.history) == bare(watched.history)


def test_norms_are_those_of_the_gradient_before_penalties() -> None:
    """Against autograd on a copy: the loss alone, on the first batch of the epoch, and the mean over its batches."""
    model, tuner, optimizer = toy_tuner([rekindle.L2(alpha=10.0)], steps=2)
    scheduler = tuner.scheduler(optimizer)
    recorder = GradientNorms(tuner.net, tuner.source)
    for epoch in range(2):
        tuner.start_epoch(epoch)
        wanted = []
        for step in range(2):
            x, y = toy_batch(10 * epoch + step)
            [expected] = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), [model.body[0].weight])
            wanted.append(float(expected.norm()))
            tuner.loss(model, x, y, nn.functional.cross_entropy).backward()
            recorder.gradients()
            tuner.gradients_()
            assert float(model.body[0].weight.grad.norm()) > 2 * wanted[-1], "the penalty comes after"
            optimizer.step()
            optimizer.zero_grad()
        scheduler.step()
        [found] = recorder.epoch().values()
        assert found == {"first": pytest.approx(wanted[0]), "mean": pytest.approx(sum(wanted) / 2)}


def test_micro_batches_give_the_norm_of_the_whole_step(options: dict[str, Any], tmp_path: Path) -> None:
    """Measured once the halves' gradients are summed; they differ from the whole only in what BatchNorm saw."""
    whole = {**options, "epochs": 1, "model": "tiny", "weights": "default", "method": "l2", "record": "gradient_norms"}
    runs = [rekindle.fit(**whole, grad_accum_steps=pieces, out=tmp_path) for pieces in (1, 2)]
    one, two = (run.history[0]["analysis"]["gradient_norms"]["layer3.2.conv2"]["first"] for run in runs)
    assert two == pytest.approx(one, rel=0.5), "neither doubled nor halved"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cifar_resnet8", RESNET),
        ("torchvision:resnet50", ["layer1.2.conv2", "layer2.3.conv2", "layer3.5.conv2", "layer4.2.conv2"]),
        ("torchvision:squeezenet1_0", [f"features.{number}.expand3x3" for number in (3, 4, 5, 7, 8, 9, 10, 12)]),
        ("test_vit", None),
    ],
)
def test_the_last_small_convolution_of_each_stage_is_watched(name: str, wanted: list[str] | None) -> None:
    """The names of Figure 2 in torchvision's ResNet-50; a transformer has its last matrices watched."""
    net = net_of(models.build(name, weights="none").module)
    found = list(watched_layers(net))
    if wanted is None:
        assert found and all(isinstance(net.model.get_submodule(layer), nn.Linear) for layer in found)
    else:
        assert found == wanted


def test_frozen_stages_are_not_watched(options: dict[str, Any], tmp_path: Path) -> None:
    run = rekindle.fit(**{**options, "epochs": 1, "method": "l2"}, freeze="layer1", record="gradient_norms,weight_distance", out=tmp_path)
    analysis = run.history[0]["analysis"]
    assert list(analysis["gradient_norms"]) == RESNET[1:]
    assert analysis["weight_distance"]["layer1.0.conv1"]["distance"] == 0 < analysis["weight_distance"]["layer2.0.conv1"]["distance"]


def test_a_new_head_is_new_also_where_it_has_as_many_classes(options: dict[str, Any], tmp_path: Path) -> None:
    """A classifier drawn anew has nowhere to travel from, and L2-SP must not pull it to the source's classes."""
    source, model = rekindle.load("tiny", classes=10)
    tuner = Tuner(model, [rekindle.L2SP()], source=source, epochs=1, steps_per_epoch=1)
    assert set(tuner.net.new()) == {"linear.weight", "linear.bias"}
    picture_folder(tmp_path / "data", {"train": 2, "val": 1}, classes=10)
    run = rekindle.fit(
        tmp_path / "data", model="tiny", method="l2_sp", epochs=1, lr=0.01, batch_size=8, record="weight_distance", out=tmp_path
    )
    assert "linear" not in run.history[0]["analysis"]["weight_distance"]


def test_travel_by_hand() -> None:
    start = {"a.weight": torch.tensor([3.0, 4.0]), "a.bias": torch.zeros(1), "b.weight": torch.zeros(2), "unused": torch.ones(1)}
    found = weight_distance({"a.weight": torch.tensor([3.0, 1.0]), "a.bias": torch.tensor([4.0]), "b.weight": torch.zeros(2)}, start)
    assert found == {"a": {"distance": 5.0, "norm": 5.0}, "b": {"distance": 0.0, "norm": 0.0}}
    assert relative(found) == 1.0
    assert relative({"b": found["b"]}) == 0.0


def test_what_cannot_be_recorded_is_named(options: dict[str, Any], tmp_path: Path) -> None:
    for text in ("norms", "gradient_norms,gradient_norms", ","):
        with pytest.raises(rekindle.UserError, match="gradient_norms and weight_distance"):
            rekindle.fit(**options, record=text, out=tmp_path)
    with pytest.raises(rekindle.UserError, match="leave one of them out"):
        RunSpec(data="x", test_every_epoch=True, test=False)
    picture_folder(tmp_path / "data", {"train": 4, "val": 2})
    with pytest.raises(rekindle.UserError, match="--test-every-epoch needs a test split"):
        rekindle.fit(**{**options, "data": str(tmp_path / "data")}, test_every_epoch=True, out=tmp_path)
    with pytest.raises(rekindle.UserError, match="no weight of the network is pre-trained"):
        rekindle.fit(**{**options, "weights": "none", "method": "l2"}, record="weight_distance", out=tmp_path)
    net = net_of(toy())
    with pytest.raises(ValueError, match="no layer behind its stem"):
        recorders("gradient_norms", Net(net.model, net.head, net.source_names, {"stem": list(net.parameters())}), Source(net.model))


def test_records_are_plain_json(watched: rekindle.Run) -> None:
    for line in watched.history:
        assert json.loads(json.dumps(line, allow_nan=False)) == line
        assert list(line["analysis"]["gradient_norms"]) == RESNET
