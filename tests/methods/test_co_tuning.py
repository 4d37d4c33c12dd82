"""Co-Tuning: its oracle, the two relationships, and that the source's classifier is kept and trained."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rekindle import Batch, DataPasses, Tuner
from rekindle.methods.distillation.co_tuning import CoTuning, calibrated, class_means, relationship_loss
from rekindle.models import replace_classifier
from tests.methods.test_distillation import CLOCK, attached, network, pictures

PROBABILITIES = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1])


def data(classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    labels = torch.arange(12) % classes
    return list(zip((pictures(12) + labels.view(-1, 1, 1, 1)).split(4), labels.split(4), strict=True))


def passes(classes: int = 3, **told: Any) -> DataPasses:
    return DataPasses(lambda: iter(data(classes)), **told)


def test_co_tuning_oracle() -> None:
    relationship = class_means(PROBABILITIES, LABELS, 2)
    assert torch.allclose(relationship, torch.tensor([[0.7, 0.3], [0.1, 0.9]], dtype=torch.float64), rtol=0, atol=1e-15)
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert float(relationship_loss(logits, torch.tensor([0]), relationship)) == pytest.approx(0.613261687518, abs=1e-12)


def test_co_tuning_oracle_through_the_method() -> None:
    method = CoTuning()
    method.hook_layers = ("source_head",)
    method.load_state_dict({"relationship": class_means(PROBABILITIES, LABELS, 2)})
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    batch = Batch(logits, torch.tensor([0]), None, logits, CLOCK, {"source_head": logits})
    assert float(method.penalty(batch)) == pytest.approx(2.3 * 0.613261687518, abs=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["plain", "cifar", "vit"])
def test_direct_is_the_class_mean_of_the_sources_probabilities(kind: str) -> None:
    method = CoTuning()
    net, source = attached(method, kind)
    with torch.no_grad():
        for p in net.shared().values():
            p.add_(1.0)  # The network may have moved; the source is asked.
    net.model.eval()
    before = copy.deepcopy(net.model.state_dict())
    method.prepare(passes())
    x, y = (torch.cat(parts) for parts in zip(*data(), strict=True))
    said = source.model(x).softmax(1)
    expected = torch.stack([said[y == label].mean(0) for label in range(3)])
    assert torch.allclose(method.state_dict()["relationship"], expected, rtol=0, atol=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())


def test_calibrated_finds_planted_pairs_and_honours_the_prior() -> None:
    """Target class 0 looks like source classes 0 and 1, target class 1 like 2 and 3."""
    rng = np.random.default_rng(0)
    seen = rng.permutation(np.repeat([0, 1, 2, 3], [60, 20, 40, 40]))
    probabilities = torch.from_numpy(0.9 * np.eye(4)[seen] + 0.1 / 4)
    labels = torch.from_numpy(seen // 2)
    told: list[str] = []
    found = calibrated(probabilities, labels, 0, DataPasses(list, note=told.append))
    assert torch.allclose(found.sum(1), torch.ones(2, dtype=torch.float64))
    assert found[0, :2].sum() > 0.97 and found[1, 2:].sum() > 0.97
    prior = probabilities.mean(0)
    assert float(found[0, 0] / found[0, 1]) == pytest.approx(float(prior[0] / prior[1]), rel=0.05)
    assert len(told) == 1 and "logistic regressions on 128 images and 4 source classes" in told[0]
    assert torch.equal(found, calibrated(probabilities, labels, 0, DataPasses(list)))


def test_calibrated_with_one_image_a_class() -> None:
    found = calibrated(torch.eye(3, dtype=torch.float64) * 0.9 + 0.1 / 3, torch.tensor([2, 0, 1]), 0, DataPasses(list))
    assert found.argmax(1).tolist() == [1, 2, 0] and torch.allclose(found.sum(1), torch.ones(3, dtype=torch.float64))


def test_calibrated_through_prepare_differs_from_direct() -> None:
    found = []
    for relationship in ("direct", "calibrated"):
        method = CoTuning(relationship=relationship)  # type: ignore[arg-type]
        net, _ = attached(method)
        net.model.eval()
        method.prepare(passes())
        found.append(method.state_dict()["relationship"])
    assert found[0].shape == found[1].shape == (3, 4) and not torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.allclose(found[1].sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("relationship", ["direct", "calibrated"])
def test_a_class_without_images_is_refused(relationship: str) -> None:
    method = CoTuning(relationship=relationship)  # type: ignore[arg-type]
    net, _ = attached(method)
    net.model.eval()
    with pytest.raises(ValueError, match="class 2 has no training image"):
        method.prepare(passes(classes=2))
    with pytest.raises(ValueError, match="no training data"):
        method.prepare(DataPasses(lambda: iter([])))


def test_gradients_reach_features_and_the_kept_classifier_alone() -> None:
    method = CoTuning()
    net, _ = attached(method)
    method.prepare(passes())
    x, y = data()[0]
    feed: dict[str, Tensor] = {}
    net.model.get_submodule("source_head").register_forward_hook(lambda module, inputs, output: feed.update(source_head=output))
    outputs = net.model(x)
    method.penalty(Batch(x, y, None, outputs, CLOCK, feed)).backward()  # type: ignore[union-attr]
    reached = {name for name, p in net.parameters().items() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == set(net.parameters()) - set(net.head_parameters())
    assert net.source_names["source_head.weight"] == "fc.weight"


def test_neutral_settings_change_nothing() -> None:
    method = CoTuning(strength=0.0)
    source, model = network("plain")
    keys = list(model.state_dict())
    tuner = Tuner(model, [method], source=source, epochs=1, steps_per_epoch=1)
    tuner.prepare(lambda: (_ for _ in ()).throw(AssertionError))
    assert list(model.state_dict()) == keys and not method.hook_layers
    assert method.penalty(Batch(pictures(), LABELS, None, pictures(), CLOCK)) is None


def test_penalty_without_preparation_says_so() -> None:
    method = CoTuning()
    with pytest.raises(ValueError, match=r"not known yet; call tuner.prepare\(pass_over_data\) first"):
        method.penalty(Batch(pictures(), LABELS, None, pictures(), CLOCK))


def test_state_round_trip_is_a_copy() -> None:
    method, other = CoTuning(), CoTuning()
    assert method.state_dict() == {}
    relationship = torch.eye(2)
    method.load_state_dict({"relationship": relationship})
    other.load_state_dict(method.state_dict())
    relationship.zero_()
    assert torch.equal(other.state_dict()["relationship"], torch.eye(2))


@pytest.mark.parametrize("relationship", ["direct", "calibrated"])
def test_training_through_the_tuner(relationship: str) -> None:
    source, model = network("plain")
    method = CoTuning(relationship=relationship)  # type: ignore[arg-type]
    tuner = Tuner(model, [method], source=source, epochs=6, steps_per_epoch=3)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.05), momentum=0.9)
    scheduler = tuner.scheduler(optimizer)
    tuner.prepare(passes())
    assert method.state_dict()["relationship"].shape == (3, 4)
    method.load_state_dict({"relationship": torch.eye(4)[:3]})  # One that there is something to learn from.
    start = model.get_submodule("source_head").weight.clone()  # type: ignore[union-attr, operator]
    assert torch.equal(start, source.model.fc.weight)  # type: ignore[union-attr, arg-type]
    values = []
    for epoch in range(6):
        tuner.start_epoch(epoch)
        for x, y in data():
            tuner.loss(model, x, y, nn.functional.cross_entropy).backward()
            tuner.gradients_()
            optimizer.step()
            optimizer.zero_grad()
        values.append(tuner.penalties()["co_tuning"])
        scheduler.step()
    assert values[-1] < 0.9 * values[0] and math.isfinite(values[-1])
    assert not torch.equal(start, model.get_submodule("source_head").weight)  # type: ignore[union-attr, arg-type]


def test_a_source_without_a_classifier_is_refused() -> None:
    from rekindle import Net

    source, model = network("plain")
    replace_classifier(model, 3)
    with pytest.raises(ValueError, match="no single classifier to keep"):
        CoTuning().surgery(Net(model, ("fc",), {}), source)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("strength", -1.0, "at least 0"),
        ("strength", float("nan"), "at least 0"),
        ("relationship", "bayes", '"direct" or "calibrated"'),
    ],
)
def test_options_are_checked(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"co_tuning: {option} must .*{allowed}.*found {value!r}"):
        CoTuning(**{option: value})
