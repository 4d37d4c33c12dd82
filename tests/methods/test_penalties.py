"""L2 and L2-SP in closed form (labels W1, W7), in float64."""

import pytest
import torch
from torch import nn

from rekindle import L2, L2SP, Method, Net, Source
from rekindle.method import Clock

CLOCK = Clock(0, 1)


class Example(nn.Module):
    """w = [1, 2] shared, w0 = [0, 2]; head [3, -1] new."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.0, 2.0], dtype=torch.float64))
        self.head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[3.0], [-1.0]]))


def attached(method: Method, move: bool = True) -> tuple[Example, Method]:
    model = Example()
    source = Source(model)
    method.attach(Net(model, ("head",), {"w": "w"}), source)
    if move:
        with torch.no_grad():
            model.w[0] = 1.0
    return model, method


def value(method: Method) -> float:
    found = method.value(CLOCK)
    assert found is not None
    return float(found.detach())


def gradients(model: Example, method: Method) -> tuple[list[float], list[float]]:
    found = {id(p): g for p, g in method.gradient(CLOCK)}
    return found[id(model.w)].tolist(), found[id(model.head.weight)].flatten().tolist()


def test_w1_l2_sp() -> None:
    model, method = attached(L2SP(alpha=0.01, beta=0.01))
    assert value(method) == pytest.approx(0.055, abs=1e-15)
    shared, head = gradients(model, method)
    assert shared == pytest.approx([0.01, 0]) and head == pytest.approx([0.03, -0.01])


def test_w1_l2() -> None:
    model, method = attached(L2(alpha=0.01))
    assert value(method) == pytest.approx(0.075, abs=1e-15)
    assert gradients(model, method)[0] == pytest.approx([0.01, 0.02])


def test_w7_zero_at_the_start_and_anchors_do_not_share_memory() -> None:
    model, method = attached(L2SP(beta=0.0), move=False)
    assert value(method) == 0.0
    assert gradients_of(model.w, method).abs().max() == 0
    with torch.no_grad():
        model.w.add_(1.0)
    assert value(method) == pytest.approx(0.01)


def gradients_of(parameter: nn.Parameter, method: Method) -> torch.Tensor:
    return next(g for p, g in method.gradient(CLOCK) if p is parameter)


@pytest.mark.parametrize("method", [L2(), L2SP(), L2SP(scope="weights"), L2(scope="weights")])
def test_closed_form_is_autograds(method: Method) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).double()
    source = Source(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    method.attach(Net(model, ("3",), {n: n for n, _ in model.named_parameters() if not n.startswith("3.")}), source)
    method.value(CLOCK).backward()  # type: ignore[union-attr]
    closed = {id(p): g for p, g in method.gradient(CLOCK)}
    for name, p in model.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        assert torch.allclose(closed.get(id(p), torch.zeros_like(p)), expected, rtol=0, atol=1e-10), name


def test_frozen_parameters_get_no_gradient() -> None:
    model, method = attached(L2SP())
    model.w.requires_grad_(False)
    assert all(p is not model.w for p, _ in method.gradient(CLOCK))


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_strengths_are_checked(value: float) -> None:
    with pytest.raises(ValueError, match=f"l2: alpha must .*0, found {value!r}"):
        L2(alpha=value)
    with pytest.raises(ValueError, match=f"l2_sp: beta must .*0, found {value!r}"):
        L2SP(beta=value)


def test_nothing_shared_is_refused() -> None:
    model = Example()
    with pytest.raises(ValueError, match="shares no parameter"):
        L2SP().attach(Net(model, ("head",), {}), Source(model))
