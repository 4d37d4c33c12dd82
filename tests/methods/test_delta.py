"""DELTA: oracle K6, its preparation by hand and through the tuner, and that it leaves no trace."""

import copy
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rekindle import Batch, DataPasses, Method, Net, Source, Tuner
from rekindle.methods.distillation._importance import channel_importance, draw_batches, fit_heads, head_parts, swapped_weights
from rekindle.methods.distillation.delta import DELTA, channel_weights
from rekindle.methods.distillation.feature_maps import FeatureMaps
from rekindle.methods.heads.source_classifier import SourceClassifier
from rekindle.models import replace_classifier
from rekindle.tuner.net import operate
from tests.methods.test_distillation import CLOCK, Plain, attached, network, pictures


def data(size: int = 4, count: int = 12) -> list[tuple[Tensor, Tensor]]:
    """Pictures in the order of their classes, as a folder gives them."""
    labels = (torch.arange(count) % 3).sort().values
    return list(zip((pictures(count) + 5 * labels.view(-1, 1, 1, 1)).split(size), labels.split(size), strict=True))


def passes(*shape: int, **told: Any) -> DataPasses:
    return DataPasses(lambda: iter(data(*shape)), **told)


def test_k6_channel_weights() -> None:
    found = channel_weights(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.255773722738, 0.326765285668, 0.417460991593], abs=1e-12)
    assert channel_weights(torch.full((4,), 0.7)).tolist() == [0.25] * 4
    assert channel_weights(torch.tensor([0.3])).tolist() == [1.0]


def on_k6(method: Method, copies: int = 1) -> float:
    """Three channels of a 1x2 map, squared distances 2, 0 and 1, in a network whose one layer gives its input."""
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    method.attach(Net(model, ("1",), {}), Source(model))
    mine = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.0]]]], dtype=torch.float64).repeat(copies, 1, 1, 1)
    batch = Batch(mine, torch.zeros(copies), None, mine, CLOCK, {"0": mine}, None, {"0": torch.zeros_like(mine)})
    found = method.penalty(batch)
    assert found is not None
    return float(found)


def test_k6_penalty() -> None:
    method = DELTA(alpha=1.0, layers="0", reduction="sum")
    method.load_state_dict({"weights": {"0": channel_weights(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))}})
    assert on_k6(method) == pytest.approx(0.696756327803, abs=1e-12)
    assert on_k6(method, 2) == pytest.approx(2 * 0.696756327803, abs=1e-12)
    assert on_k6(DELTA(alpha=1.0, layers="0", weights="uniform", reduction="sum")) == pytest.approx(0.75, abs=1e-12)
    assert on_k6(DELTA(alpha=1.0, layers="0", weights="uniform", reduction="batchmean"), 2) == pytest.approx(0.75, abs=1e-12)
    assert on_k6(DELTA(alpha=0.01, layers="0", weights="uniform", reduction="sum")) == pytest.approx(0.0075, abs=1e-12)


def test_relative_distances_do_not_know_the_size_of_activations() -> None:
    """Distances 2, 0, 1 of a source whose squared length is 6: half of 3 / 6; and ten times larger activations cost the same."""
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    theirs = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]], [[1.0, 2**0.5]]]], dtype=torch.float64)
    mine = theirs + torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]], [[1.0, 0.0]]]], dtype=torch.float64)
    for method in (DELTA(layers="0", weights="uniform"), FeatureMaps(layers="0")):
        method.attach(Net(model, ("1",), {}), Source(model))
        for scale in (1.0, 10.0):
            batch = Batch(mine, torch.zeros(1), None, mine, CLOCK, {"0": scale * mine}, None, {"0": scale * theirs})
            assert float(method.penalty(batch)) == pytest.approx(0.25, abs=1e-12)  # type: ignore[arg-type]
            batch = Batch(mine, torch.zeros(1), None, mine, CLOCK, {"0": scale * mine}, None, {"0": torch.zeros_like(mine)})
            assert torch.isfinite(method.penalty(batch))  # type: ignore[arg-type]


def importance_by_hand(net: Net, layer: str, axis: int, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """By full passes with a hook."""
    growth: Counter[int] = Counter()
    width = 0
    for x, y in batches:
        with torch.no_grad():
            before = F.cross_entropy(net.model(x), y)
            shapes: list[int] = []
            handle = net.model.get_submodule(layer).register_forward_hook(
                lambda module, inputs, output, shapes=shapes: shapes.append(output.shape[axis])
            )
            net.model(x)
            handle.remove()
            width = shapes[0]
            for channel in range(width):

                def silence(module: nn.Module, inputs: Any, output: Tensor, channel: int = channel) -> Tensor:
                    return output.clone().index_fill_(axis, torch.tensor([channel]), 0.0)

                handle = net.model.get_submodule(layer).register_forward_hook(silence)
                growth[channel] += (F.cross_entropy(net.model(x), y) - before) / len(batches)  # type: ignore[assignment]
                handle.remove()
    return torch.tensor([float(growth[channel]) for channel in range(width)], dtype=torch.float64)


@pytest.mark.parametrize(("kind", "axis"), [("plain", 1), ("cifar", 1), ("vit", 2)])
def test_importance_is_that_of_full_passes(kind: str, axis: int) -> None:
    method = DELTA()
    net, _ = attached(method, kind)
    net.model.eval()
    batches = data()[:2]
    found = channel_importance(net, method.hook_layers, batches, passes())
    assert list(found) == list(method.hook_layers)
    for layer in method.hook_layers:
        assert torch.allclose(found[layer], importance_by_hand(net, layer, axis, batches), rtol=0, atol=1e-14)
        assert float(found[layer].std()) > 0


@pytest.mark.parametrize("kind", ["plain", "cifar", "vit"])
def test_the_preparation_leaves_no_trace(kind: str) -> None:
    method = DELTA(batches=2)
    net, _ = attached(method, kind)
    net.model.eval()
    before = copy.deepcopy(net.model.state_dict())
    pointers = [p.data_ptr() for p in net.model.parameters()]
    generator = torch.get_rng_state()
    method.prepare(passes())
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert [p.data_ptr() for p in net.model.parameters()] == pointers
    assert all(p.grad is None and p.requires_grad for p in net.model.parameters())
    assert torch.equal(generator, torch.get_rng_state())
    assert all(not module.training and "forward" not in module.__dict__ for module in net.model.modules())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.model.modules())
    weights = method.state_dict()["weights"]
    assert list(weights) == list(method.hook_layers)
    assert all(float(w.sum()) == pytest.approx(1.0) and (w > 0).all() and float(w.std()) > 0 for w in weights.values())


def test_weights_come_from_a_head_that_was_fitted() -> None:
    method = DELTA(batches=3)
    net, _ = attached(method)
    net.model.eval()
    many = passes(32, 384)
    method.prepare(many)
    heads, samples = fit_heads(net, many)
    assert samples == 384
    with swapped_weights(net.model, heads):
        fitted = channel_importance(net, method.hook_layers, draw_batches(net, many, 3, samples), many)
    raw = channel_importance(net, method.hook_layers, draw_batches(net, many, 3, samples), many)
    for layer, weights in method.state_dict()["weights"].items():
        assert torch.equal(weights, channel_weights(fitted[layer]))
        assert not torch.allclose(weights, channel_weights(raw[layer]), rtol=1e-2)


def test_the_fitted_head_is_better_and_a_copy() -> None:
    net, _ = attached(DELTA())
    net.model.eval()
    before = net.model.fc.weight.clone()  # type: ignore[union-attr, operator]
    heads, _ = fit_heads(net, passes(32, 384))

    def loss() -> float:
        return float(sum(F.cross_entropy(net.model(x), y) for x, y in data(32, 384)).detach())  # type: ignore[union-attr]

    start = loss()
    with swapped_weights(net.model, heads):
        assert loss() < 0.8 * start
        assert not torch.equal(before, net.model.fc.weight)  # type: ignore[union-attr, arg-type]
    assert loss() == start
    with pytest.raises(ZeroDivisionError), swapped_weights(net.model, heads):
        raise ZeroDivisionError
    assert torch.equal(before, net.model.fc.weight)  # type: ignore[union-attr, arg-type]


def test_the_fitted_head_does_not_depend_on_how_the_data_is_batched() -> None:
    net, _ = attached(DELTA())
    net.model.eval()
    one, other = (fit_heads(net, passes(size))[0]["fc"].weight for size in (12, 3))  # type: ignore[union-attr]
    assert torch.allclose(one, other, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_batches_are_drawn_from_all_classes() -> None:
    net, _ = attached(DELTA())
    drawn = draw_batches(net, passes(), 2, 12)
    assert [len(y) for _, y in drawn] == [4, 4]
    assert all(len(set(y.tolist())) > 1 for _, y in drawn)  # The data itself gives one class a batch.
    rows = {tuple(x.flatten().tolist()): int(y) for xs, ys in data() for x, y in zip(xs, ys, strict=True)}
    found = [(tuple(x.flatten().tolist()), int(y)) for xs, ys in drawn for x, y in zip(xs, ys, strict=True)]
    assert len(set(found)) == 8 and all(rows[x] == y for x, y in found)
    assert all(torch.equal(x, z) for (x, _), (z, _) in zip(drawn, draw_batches(net, passes(), 2, 12), strict=True))
    assert [len(y) for _, y in draw_batches(net, passes(), 9, 12)] == [4, 4, 4]


def test_the_head_of_several_parts() -> None:
    source, model = network("plain")
    net = operate(model, [SourceClassifier(hidden=5)], source, None)
    assert head_parts(net) == ("fc",) and len(net.head) > 1
    net.model.eval()
    heads, _ = fit_heads(net, passes())
    own, fitted = net.model.get_submodule("fc").state_dict(), heads["fc"].state_dict()
    assert torch.equal(own["source.weight"], fitted["source.weight"]) and not torch.equal(own["linear.weight"], fitted["linear.weight"])
    assert head_parts(Net(model, ("one", "two"), {})) == ("one", "two")


class Twins(Plain):
    """Two classifiers side by side, whose logits are averaged."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__(classes)
        self.other = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layer2(self.layer1(self.stem(x))).mean((2, 3))
        return (self.fc(features) + self.other(features)) / 2


def test_two_classifiers_side_by_side() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Twins(3).double().eval()
    source = Source(model)
    method = DELTA(batches=1)
    net = Net(model, ("fc", "other"), {}, {"layer1": [], "layer2": []})
    method.attach(net, source)
    before = copy.deepcopy(model.state_dict())
    heads, _ = fit_heads(net, passes())
    assert all(not torch.equal(head.weight, before[f"{name}.weight"]) for name, head in heads.items())  # type: ignore[arg-type]
    method.prepare(passes())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(method.state_dict()["weights"]) == {"layer1", "layer2"}


def test_cost_and_progress_are_told() -> None:
    method = DELTA(batches=2)
    net, _ = attached(method)
    net.model.eval()
    notes: list[str] = []
    steps: list[tuple[str, int, int]] = []

    def note(text: str) -> None:
        assert not any("importance" in what for what, _, _ in steps)  # Before it starts.
        notes.append(text)

    method.prepare(passes(note=note, progress=lambda *step: steps.append(step)))
    assert len(notes) == 1 and "10 channels in 2 layers, 2 batches each, takes 20 runs" in notes[0]
    assert re.search(r"about \d+:\d\d:\d\d", notes[0])
    assert [step for step in steps if "importance" in step[0]] == [("delta: importance of channels", number, 20) for number in range(1, 21)]
    assert [step for step in steps if "head" in step[0]] == [("delta: fitting a head", number, 10) for number in range(1, 11)]


def test_nothing_is_looked_at_where_nothing_is_needed() -> None:
    def never() -> Iterator[tuple[Tensor, Tensor]]:
        raise AssertionError

    for method in (DELTA(weights="uniform"), DELTA(alpha=0.0)):
        attached(method)
        method.prepare(DataPasses(never))
    with pytest.raises(ValueError, match="no training data"):
        method = DELTA()
        attached(method)
        method.prepare(DataPasses(lambda: iter([])))


def test_penalty_without_preparation_says_so() -> None:
    with pytest.raises(ValueError, match=r"no weights yet; call tuner.prepare\(pass_over_data\) first"):
        on_k6(DELTA(layers="0"))


def test_beta_pulls_new_parameters_to_zero_in_closed_form() -> None:
    method = DELTA(beta=0.3)
    net, _ = attached(method)
    method.value(CLOCK).backward()
    closed = {id(p): g for p, g in method.gradient(CLOCK)}
    assert {id(p) for p in net.head_parameters().values()} == set(closed)
    for p in net.model.parameters():
        if p.grad is None:
            assert id(p) not in closed
        else:
            assert torch.allclose(p.grad, 0.3 * p) and torch.allclose(closed[id(p)], p.grad, rtol=0, atol=1e-12)


def tuned(method: DELTA) -> tuple[Tuner, torch.optim.Optimizer]:
    source, model = network("plain")
    tuner = Tuner(model, [method], source=source, epochs=2, steps_per_epoch=2)
    return tuner, torch.optim.SGD(tuner.param_groups(lr=0.01), momentum=0.9)


def step(tuner: Tuner, optimizer: torch.optim.Optimizer) -> None:
    x, y = data()[0]
    tuner.loss(tuner.net.model, x, y, nn.functional.cross_entropy).backward()
    tuner.gradients_()
    optimizer.step()
    optimizer.zero_grad()


def test_through_the_tuner_and_after_resume() -> None:
    tuner, optimizer = tuned(DELTA(alpha=0.1))
    scheduler = tuner.scheduler(optimizer)
    tuner.prepare(passes())
    tuner.start_epoch(0)
    step(tuner, optimizer)
    states = copy.deepcopy([part.state_dict() for part in (tuner.net.model, optimizer, scheduler, tuner)])
    step(tuner, optimizer)
    other, optimizer_ = tuned(DELTA(alpha=0.1))
    parts = (other.net.model, optimizer_, other.scheduler(optimizer_), other)
    for part, state in zip(parts, states, strict=True):
        part.load_state_dict(state)
    other.prepare(lambda: (_ for _ in ()).throw(AssertionError))  # Prepared already.
    other.start_epoch(0)
    step(other, optimizer_)
    assert tuner.penalties()["delta"] > 0
    assert all(torch.equal(value, other.net.model.state_dict()[name]) for name, value in tuner.net.model.state_dict().items())


def test_a_loaded_state_is_a_copy() -> None:
    method, weights = DELTA(layers="0"), torch.tensor([0.5, 0.5])
    method.load_state_dict({"weights": {"0": weights}})
    weights.zero_()
    assert method.state_dict()["weights"]["0"].tolist() == [0.5, 0.5]


def test_a_head_without_parameters_is_refused() -> None:
    _, model = network("plain")
    replace_classifier(model, 3)
    net = Net(model, ("fc",), {})
    model.fc = nn.Identity()
    with pytest.raises(ValueError, match="the head fc has no parameters to fit"):
        fit_heads(net, passes())


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("alpha", -1.0, "at least 0"),
        ("beta", float("inf"), "at least 0"),
        ("weights", "learned", '"attention" or "uniform"'),
        ("layers", 3, '"stages"'),
        ("reduction", "mean", '"relative" or "batchmean" or "sum"'),
        ("batches", 0, "whole number .*1"),
        ("batches", True, "whole number .*1"),
    ],
)
def test_options_are_checked(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"delta: {option} must .*{allowed}.*found {value!r}"):
        DELTA(**{option: value})
