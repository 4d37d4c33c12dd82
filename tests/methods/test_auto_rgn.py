"""Auto-RGN: rates by relative gradient norms, in closed form and through the optimiser."""

import pytest
import torch
import torch.nn.functional as F

from rekindle.methods import AutoRGN, LayerDecay
from rekindle.testing.network import Loop, hybrid, passes
from tests.toys import toy, toy_tuner


def ratios(loop: Loop, batches: int) -> dict[str, float]:
    """Relative gradient norms by module, by hand."""
    model = loop.model.eval()
    found: dict[str, float] = {}
    layers = {name.rpartition(".")[0] for name, _ in model.named_parameters() if not name.startswith("fc.")}
    for x, y in passes()[:batches]:
        model.zero_grad()
        F.cross_entropy(model(x.to(next(model.parameters()).dtype)), y).backward()
        for layer in layers:
            own = list(model.get_submodule(layer).parameters(recurse=False))
            top = sum(float(p.grad.square().sum()) for p in own if p.grad is not None) ** 0.5
            found[layer] = found.get(layer, 0.0) + top / sum(float(p.detach().square().sum()) for p in own) ** 0.5
    model.zero_grad(set_to_none=True)
    return {layer: value / max(found.values()) for layer, value in found.items()}


@pytest.mark.parametrize("batches", [1, 2])
def test_first_rates_are_relative_gradient_norms(batches: int) -> None:
    loop = Loop([AutoRGN(batches=batches)], hybrid().double())
    wanted = ratios(loop, batches)
    loop.tuner.prepare(lambda: [(x.double(), y) for x, y in passes()])
    loop.tuner.start_epoch(0)
    rates = {group["layer"]: group["lr"] for group in loop.optimizer.param_groups if "layer" in group}
    assert rates == pytest.approx({layer: 0.01 * value for layer, value in wanted.items()}, rel=1e-10)
    assert max(rates.values()) == pytest.approx(0.01)
    [head] = [group for group in loop.optimizer.param_groups if group["name"] == "head"]
    assert head["lr"] == 0.01 and {id(p) for p in head["params"]} == {id(p) for p in loop.model.fc.parameters()}  # type: ignore[union-attr]


def test_an_epoch_goes_by_the_gradients_of_the_one_before() -> None:
    method = AutoRGN()
    _, tuner, optimizer = toy_tuner([method], toy(norm=True).double(), epochs=2, steps=2)
    tuner.prepare(lambda: [(torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1]))])
    scheduler = tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    sums = {"body.0": 0.0, "body.1": 0.0}
    for step in range(2):
        for index, (name, p) in enumerate(tuner.net.parameters().items()):
            p.grad = torch.full_like(p, 0.1 * (index + 1) * (step + 1)) if not name.startswith("fc.") else torch.zeros_like(p)
        tuner._called.add("loss")
        tuner.gradients_()
        optimizer.step()
        for layer in sums:
            own = list(tuner.net.model.get_submodule(layer).parameters())
            top, bottom = (torch.cat([t.flatten() for t in tensors]).norm() for tensors in ([p.grad for p in own], own))
            sums[layer] += float(top / bottom)
    scheduler.step()
    tuner.start_epoch(1)
    largest = max(sums.values())
    assert {layer: method.layer_factor(layer, tuner._clock()) for layer in sums} == pytest.approx({k: v / largest for k, v in sums.items()})
    rates = {group["layer"]: group["lr"] for group in optimizer.param_groups if "layer" in group}
    assert rates == pytest.approx({layer: 0.005 * value / largest for layer, value in sums.items()}), "half of a cosine of two epochs"


def test_factors_multiply() -> None:
    alone, both = (Loop([AutoRGN(), *more]) for more in ([], [LayerDecay(factor=0.5)]))
    for loop in (alone, both):
        loop.tuner.prepare(passes)
        loop.tuner.start_epoch(0)
    one, two = ({group.get("layer"): group["lr"] for group in loop.optimizer.param_groups} for loop in (alone, both))
    assert two["blocks.1.attn.qkv"] == pytest.approx(0.5 * one["blocks.1.attn.qkv"])
    assert two["stem"] == pytest.approx(0.5**5 * one["stem"]) and two[None] == one[None]
