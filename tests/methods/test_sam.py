"""Sharpness-aware minimisation, in float64: steps by hand, what the second pass leaves behind, and where it is refused."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from rekindle import DTNH, L2SP, Method
from rekindle.methods.flatness.sam import SAM
from rekindle.methods.noise.disturb_label import DisturbLabel
from tests.toys import toy, toy_tuner

CE = nn.functional.cross_entropy
X, Y = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(12) % 3


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def step(methods: list[Method], model: nn.Module, parts: int = 1, **options: object) -> tuple[nn.Module, list[Tensor]]:
    """The network after `gradients_` of one step over micro-batches, and its gradients."""
    _, tuner, optimizer = toy_tuner(methods, model.double().train(), **options)
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    for x, y in zip(X.chunk(parts), Y.chunk(parts), strict=True):
        (tuner.loss(model, x, y, CE) / parts).backward()
    tuner.gradients_()
    return model, [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]


def by_hand(rho: float) -> list[Tensor]:
    """The loss's gradient at w + rho * g / ||g||."""
    model = toy().double().train()
    CE(model(X), Y).backward()
    gradients = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    length = torch.cat([g.flatten() for g in gradients]).norm()
    with torch.no_grad():
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.add_(rho * g / length)
    model.zero_grad()
    CE(model(X), Y).backward()
    return [p.grad for p in model.parameters()]  # type: ignore[misc]


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("rho", [0.0, 0.05, 2.0])
def test_the_gradient_is_that_at_the_worst_weights_nearby(rho: float, parts: int) -> None:
    model, found = step([SAM(rho=rho)], toy(), parts)
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(found, by_hand(rho), strict=True))
    assert all(torch.equal(p, q.double()) for p, q in zip(model.parameters(), toy().parameters(), strict=True))


def test_pulls_on_weights_act_from_where_the_weights_are() -> None:
    model = toy().double()
    _, tuner, optimizer = toy_tuner([SAM(rho=1.0), L2SP(alpha=0.3, beta=0.1)], model)
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    tuner.loss(model.train(), X, Y, CE).backward()
    tuner.gradients_()
    for (name, p), g in zip(model.named_parameters(), by_hand(1.0), strict=True):
        pull = 0.1 * p.detach() if name.startswith("fc") else 0.0  # Shared weights are at their start.
        assert torch.allclose(p.grad, g + pull, rtol=0, atol=1e-9), name  # type: ignore[arg-type]


def test_a_direction_combines_the_second_gradients() -> None:
    """At the start the regulariser is zero, so the direction leaves the loss's gradient as it is."""
    _, found = step([SAM(rho=1.0), L2SP(alpha=0.3, beta=0.0)], toy(), direction=DTNH())
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(found, by_hand(1.0), strict=True))


def test_statistics_and_generators_are_those_of_the_first_pass() -> None:
    plain, sharp = (toy(norm=True).double() for _ in range(2))
    for model, methods in ((plain, []), (sharp, [SAM(rho=3.0)])):
        model.body.append(nn.Dropout(0.5))  # type: ignore[operator, union-attr]
        torch.manual_seed(4)
        step(list(methods), model)  # type: ignore[call-overload]
    state = torch.get_rng_state()
    torch.manual_seed(4)
    step([], toy(norm=True).double())
    assert all(torch.equal(value, dict(sharp.named_buffers())[name]) for name, value in plain.named_buffers())
    torch.manual_seed(4)
    other = toy(norm=True).double()
    other.body.append(nn.Dropout(0.5))  # type: ignore[operator, union-attr]
    step([], other)
    assert torch.equal(state, torch.get_rng_state())


def test_both_passes_draw_the_same_masks() -> None:
    model = toy()
    model.body.append(nn.Dropout(0.5))  # type: ignore[operator, union-attr]
    seen: list[Tensor] = []
    model.fc.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0] == 0).detach()))  # type: ignore[union-attr]
    step([SAM()], model, parts=2)
    assert len(seen) == 4 and torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[1])


def test_labels_are_disturbed_once() -> None:
    """The second pass is told the same labels."""
    told: list[Tensor] = []

    def criterion(outputs: Tensor, labels: Tensor) -> Tensor:
        told.append(labels.clone())
        return CE(outputs, labels)

    model = toy().double().train()
    _, tuner, optimizer = toy_tuner([SAM(), DisturbLabel(gamma=0.9)], model)
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    tuner.loss(model, X, Y, criterion, torch.arange(12)).backward()
    tuner.gradients_()
    assert len(told) == 2 and torch.equal(*told) and not torch.equal(told[0], Y)


def test_a_scaler_and_outputs_of_somebody_elses_are_refused() -> None:
    model = toy().double()
    _, tuner, optimizer = toy_tuner([SAM()], model)
    tuner.scheduler(optimizer)
    tuner.start_epoch(0)
    with pytest.raises(ValueError, match=r"sam must compute the outputs again at other weights: use tuner\.loss\(model"):
        tuner.loss_of(model(X), X, tuner.labels(Y), CE)
    tuner.loss(model, X, Y, CE).backward()
    with pytest.raises(ValueError, match="sam takes two gradients a step, and a gradient scaler knows of one"):
        tuner.gradients_(scale=1024.0)


def test_no_distance_makes_no_second_pass() -> None:
    model, calls = toy(), []
    model.register_forward_hook(lambda *_: calls.append(1))
    step([SAM(rho=0.0)], model)
    assert len(calls) == 1
