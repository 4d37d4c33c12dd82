"""Fast trainable projection and its balls, in float64: by hand, by autograd, and against the algorithm written out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rekindle import Tuner
from rekindle.methods.anchors._radius import LEAST, RadiusAdam, lengths, shares, slope
from rekindle.methods.anchors.ftp import FTP
from tests.toys import toy

D = torch.tensor([[3.0, -4.0], [0.0, 1.0]], dtype=torch.float64)


def test_lengths_and_projections_by_hand() -> None:
    assert lengths(D, "mars").tolist() == [[7.0], [1.0]]
    assert float(lengths(D, "l2")) == pytest.approx(26**0.5)
    assert lengths(D[0], "mars").tolist() == [3.0, 4.0]
    assert lengths(torch.ones(2, 3, 2, 2), "mars").shape == (2, 1, 1, 1)
    radius = torch.tensor(3.5, dtype=torch.float64)
    held = shares(radius, lengths(D, "mars")) * D
    assert held.tolist() == [[1.5, -2.0], [0.0, 1.0]]
    assert float(lengths(shares(radius, lengths(D, "l2")) * D, "l2")) == pytest.approx(3.5)
    assert torch.equal(shares(radius, torch.zeros(2, 1, dtype=torch.float64)), torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["mars", "l2"])
def test_no_projected_tensor_is_longer_than_its_radius(norm: Any) -> None:
    stream = torch.Generator().manual_seed(0)
    for scale in (1e-12, 1.0, 1e12):
        distance = torch.randn(5, 3, 2, generator=stream, dtype=torch.float64) * scale
        for radius in (1e-8, 0.5 * scale, 3 * scale):
            held = shares(torch.tensor(radius, dtype=torch.float64), lengths(distance, norm)) * distance
            assert float(lengths(held, norm).max()) <= radius * (1 + 1e-12)


@pytest.mark.parametrize("norm", ["mars", "l2"])
def test_the_slope_is_autograds(norm: Any) -> None:
    """Where every row is longer than the radius, it is the derivative of the loss at the projected weights."""
    radius = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    distance = D + 0.1
    weights = shares(radius, lengths(distance, norm)) * distance
    loss = (weights.square() * torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)).sum() + weights.sum()
    [by_weights, by_radius] = torch.autograd.grad(loss, [weights, radius])
    assert float(slope(by_weights, distance, lengths(distance, norm))) == pytest.approx(float(by_radius), abs=1e-12)


def test_adam_on_a_radius_is_torchs() -> None:
    p = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    theirs, mine = torch.optim.Adam([p], lr=0.01), RadiusAdam(torch.tensor(1.0, dtype=torch.float64))
    for gradient in (0.3, -0.1, 2.0):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        theirs.step()
        mine.step(torch.tensor(gradient, dtype=torch.float64), 0.01)
        assert float(p.detach()) == pytest.approx(float(mine.radius), abs=1e-14)


class Plain(nn.Module):
    """One shared parameter of two rows, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 2, bias=False, dtype=torch.float64)
        self.fc = nn.Linear(2, 1, bias=False, dtype=torch.float64)


def trained(method: FTP, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The start, and the weights of the body after each step of SGD at rate 1 along gradients that are given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Plain()
    start = model.body.weight.detach().clone()
    tuner = Tuner(model, [method], head="fc", epochs=1, steps_per_epoch=len(gradients))
    made = torch.optim.SGD(tuner.param_groups(lr=1.0))
    tuner.scheduler(made)
    tuner.start_epoch(0)
    found = []
    for gradient in gradients:
        for group in made.param_groups:
            group["lr"] = 1.0
        model.body.weight.grad = gradient.clone()
        tuner.gradients_()
        made.step()
        found.append(model.body.weight.detach().clone())
    return start, found


GRADIENTS = [torch.randn(2, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64) - 0.5 for n in range(12)]


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_twelve_steps_are_the_algorithm_written_out(kappa: float) -> None:
    start, found = trained(FTP(kappa=kappa), GRADIENTS)
    w, gamma, m, v, before = start.clone(), LEAST, 0.0, 0.0, torch.zeros(2, 3, dtype=torch.float64)
    norms = torch.ones(2, 1, dtype=torch.float64)
    for t, (g, mine) in enumerate(zip(GRADIENTS, found, strict=True), 1):
        c = w - g - start
        if t > 1:
            by_gamma = float(((g * before).sum(1, keepdim=True) / norms).sum())
            by_gamma *= kappa if by_gamma > 0 else 1
            m, v = 0.9 * m + 0.1 * by_gamma, 0.999 * v + 0.001 * by_gamma**2
            gamma -= 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
            gamma = min(max(gamma, 1e-8), float(c.abs().sum(1).max()))
        norms = c.abs().sum(1, keepdim=True)
        w, before = start + (gamma / norms).clamp(0, 1) * c, c
        assert torch.allclose(w, mine, rtol=0, atol=1e-12)
    assert float((w - start).abs().sum()) > 1e-3


def test_a_ball_begins_at_nothing_and_grows_where_the_loss_keeps_falling() -> None:
    out = torch.full((2, 3), -1.0, dtype=torch.float64)
    start, found = trained(FTP(), [out] * 6)
    reach = [float((w - start).abs().sum(1).max()) for w in found]
    assert reach[0] == pytest.approx(LEAST, rel=1e-3) and reach == sorted(reach) and reach[-1] < 6 * 0.05


def test_new_parameters_are_free() -> None:
    model = toy()
    method = FTP(norm="l2")
    Tuner(model, [method], head="fc", epochs=1, steps_per_epoch=1)
    assert not any(name.startswith("fc") for name in method.state_dict()["anchors"])
    with pytest.raises(ValueError, match="ftp: the network shares no parameter with its source"):
        Tuner(toy(), [FTP()], head="fc", source_names={}, epochs=1, steps_per_epoch=1)
