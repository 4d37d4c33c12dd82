"""L1-SP, Group-Lasso-SP, the orthogonal L2-SP and the L2 mixture (labels W3, W4, W6, W7), in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn

from rekindle import L2SP, Method, Net, Source
from rekindle.method import Clock
from rekindle.methods.penalties.group_lasso_sp import GroupLassoSP
from rekindle.methods.penalties.l1_sp import L1SP
from rekindle.methods.penalties.l2_mixture import L2Mixture
from rekindle.methods.penalties.l2_sp_fisher import L2SPFisher

CLOCK = Clock(0, 1)
W4_DISTANCE = [[3.0, 4.0], [0.0, 0.0]]


class Example(nn.Module):
    """One shared parameter at w0, and the head [3, -1]."""

    def __init__(self, start: object) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[3.0], [-1.0]]))


def attached(method: Method, start: object, now: object) -> Example:
    """A network whose shared parameter has moved from `start` to `now`."""
    model = Example(start)
    method.attach(Net(model, ("head",), {"w": "w"}, {"first": ["w"]}, "head"), Source(model))
    with torch.no_grad():
        model.w.copy_(torch.tensor(now, dtype=torch.float64))
    return model


def value(method: Method) -> float:
    found = method.value(CLOCK)
    assert found is not None
    return float(found.detach())


def slope(model: Example, method: Method) -> list[float]:
    """The closed-form gradient of the shared parameter."""
    return next(g for p, g in method.gradient(CLOCK) if p is model.w).flatten().tolist()


def after_step(method: Method, model: Example, rate: float) -> list[float]:
    method.after_step_(CLOCK, lambda parameter: rate)
    return model.w.detach().flatten().tolist()


def test_w3_l1_sp() -> None:
    method = L1SP(alpha=0.01, beta=0.0)
    model = attached(method, [0.0, 2, 1], [1.0, 2, -1])
    assert value(method) == pytest.approx(0.03, abs=1e-15)
    assert slope(model, method) == pytest.approx([0.01, 0, -0.01])


def test_w3_proximal() -> None:
    method = L1SP(alpha=0.01, beta=0.01, solver="proximal")
    model = attached(method, [0.0, 2, 1], [0.0005, 2.5, 0.9])
    assert after_step(method, model, 0.1) == pytest.approx([0, 2.499, 0.901], abs=1e-15)
    assert float(model.w[0].detach()) == 0.0


def test_w4_group_lasso_sp() -> None:
    method = GroupLassoSP(alpha=0.01, beta=0.0)
    model = attached(method, [[0.0, 0], [0, 0]], W4_DISTANCE)
    assert value(method) == pytest.approx(0.0707106781187, abs=1e-12)
    assert slope(model, method) == pytest.approx([0.00848528137424, 0.0113137084990, 0, 0], abs=1e-12)


def test_w4_by_layer() -> None:
    method = GroupLassoSP(alpha=0.01, beta=0.0, group="layer")
    attached(method, [[0.0, 0], [0, 0]], W4_DISTANCE)
    assert value(method) == pytest.approx(0.1, abs=1e-15)


def test_w4_proximal() -> None:
    method = GroupLassoSP(alpha=0.01, solver="proximal")
    model = attached(method, [[0.0, 0], [0, 0]], W4_DISTANCE)
    assert after_step(method, model, 0.1) == pytest.approx([2.99915147186, 3.99886862915, 0, 0], abs=1e-11)


def test_w4_with_fisher() -> None:
    method = GroupLassoSP(alpha=0.01, beta=0.0, fisher=True)
    model = attached(method, [[0.0, 0], [0, 0]], W4_DISTANCE)
    method.load_state_dict(method.state_dict() | {"fisher": {"w": torch.tensor([[4.0, 1], [4, 1]])}})
    assert value(method) == pytest.approx(0.101980390272, abs=1e-12)
    assert slope(model, method) == pytest.approx([0.0235339362166, 0.0078446454055, 0, 0], abs=1e-12)


def test_proximal_stops_at_the_start_and_a_group_goes_as_one() -> None:
    method = GroupLassoSP(alpha=1.0, solver="proximal")
    model = attached(method, [[0.3, 0.7], [0.1, 5]], [[0.4, 0.6], [0.1, 9]])
    found = after_step(method, model, 0.1)
    assert found[:3] == [0.3, 0.7, 0.1] and 8.8 < found[3] < 9


def test_smoothing_leaves_a_rest_at_the_start() -> None:
    method = GroupLassoSP(alpha=0.01, beta=0.0, eps=1e-16)
    attached(method, [[1.0, 2], [3, 4]], [[1.0, 2], [3, 4]])
    assert value(method) == pytest.approx(0.01 * 2 * 2**0.5 * 1e-8)


def test_autograd_has_no_nan_at_the_start() -> None:
    for method in (GroupLassoSP(), GroupLassoSP(group="layer"), L1SP(), GroupLassoSP(fisher=True)):
        model = attached(method, [[1.0, 2], [3, 4]], [[1.0, 2], [3, 4]])
        method.value(CLOCK).backward()  # type: ignore[union-attr]
        assert model.w.grad is not None and model.w.grad.abs().max() == 0


def test_w6_orthogonal() -> None:
    method = L2SP(alpha=0.01, beta=0.0, orthogonal=True)
    model = attached(method, [[1.0, 0]], [[2.0, 1]])
    assert value(method) == pytest.approx(0.005, abs=1e-15)
    assert slope(model, method) == pytest.approx([0, 0.01])


def test_w6_a_channel_of_zeros_and_a_bias_fall_back() -> None:
    for start, now in (([[0.0, 0]], [[2.0, 1]]), ([1.0, 0], [2.0, 1])):
        plain, orthogonal = L2SP(), L2SP(orthogonal=True)
        first, second = attached(plain, start, now), attached(orthogonal, start, now)
        assert value(orthogonal) == value(plain)
        assert slope(second, orthogonal) == slope(first, plain)


def test_w6_a_scaled_channel_costs_nothing() -> None:
    method = L2SP(alpha=1.0, beta=0.0, orthogonal=True)
    attached(method, [[1.0, 2], [3, 4]], [[10.0, 20], [-3, -4]])
    assert value(method) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "method", [L1SP(beta=0.0), GroupLassoSP(beta=0.0), GroupLassoSP(beta=0.0, group="layer"), L2SP(beta=0.0, orthogonal=True)]
)
def test_w7_nothing_at_the_start(method: Method) -> None:
    model = attached(method, [[1.0, 2], [3, 4]], [[1.0, 2], [3, 4]])
    assert value(method) == 0.0
    assert slope(model, method) == [0.0] * 4


def test_w7_groups_of_one_are_l1_sp() -> None:
    start, now = [1.0, 2, 3], [0.5, 2, 7]
    one, other = GroupLassoSP(alpha=0.3), L1SP(alpha=0.3)
    first, second = attached(one, start, now), attached(other, start, now)
    assert value(one) == pytest.approx(value(other))
    assert slope(first, one) == pytest.approx(slope(second, other))


def test_mixture() -> None:
    """The oracle of METHODS' section 7, and its identity: one pull to the shrunk anchor, and a constant."""
    method = L2Mixture(alpha=0.03, decay=0.01, beta=0.0)
    model = attached(method, [0.0, 2], [1.0, 2])
    assert value(method) == pytest.approx(0.04, abs=1e-15)
    assert slope(model, method) == pytest.approx([0.04, 0.02])
    for now in ([1.0, 2], [-3.0, 0.5]):
        with torch.no_grad():
            model.w.copy_(torch.tensor(now))
        shrunk = (model.w.detach() - torch.tensor([0, 1.5])).square().sum() * 0.04 / 2
        assert value(method) == pytest.approx(float(shrunk) + 0.03 * 0.01 / (2 * 0.04) * 4)


def test_mixture_by_stage() -> None:
    general, own = L2Mixture(alpha=0.2, decay=0.3), L2Mixture(alpha=5.0, decay=7.0, stages=(("first", 0.2, 0.3),))
    first, second = attached(general, [0.0, 2], [1.0, 2]), attached(own, [0.0, 2], [1.0, 2])
    assert slope(first, general) == slope(second, own) and value(general) == value(own)
    with pytest.raises(ValueError, match="no stage 'last'; the stages are first"):
        attached(L2Mixture(stages=(("last", 0.1, 0.1),)), [0.0], [0.0])


def test_mixture_without_strength_is_none() -> None:
    method = L2Mixture(alpha=0.0, decay=0.0, beta=0.0)
    attached(method, [0.0, 2], [1.0, 2])
    assert method.gradient(CLOCK) == [] and value(method) == 0.0


ALL = [
    L1SP(), L1SP(solver="proximal"), GroupLassoSP(), GroupLassoSP(group="layer"), GroupLassoSP(eps=0.1), GroupLassoSP(fisher=True),
    GroupLassoSP(fisher=True, eps=0.1, group="layer"), GroupLassoSP(solver="proximal"), L2SP(orthogonal=True), L2SPFisher(),
    L2Mixture(stages=(("1", 0.5, 0.0),)), L1SP(scope="weights"),
]  # fmt: skip


def moved_network(method: Method) -> nn.Sequential:
    """Convolution, BatchNorm and a head, away from the start; any Fisher information is drawn."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).double()
    names = [name for name, _ in model.named_parameters() if not name.startswith("3.")]
    method.attach(Net(model, ("3",), {name: name for name in names}, {"0": names[:2], "1": names[2:]}, "3"), Source(model))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
        for tensor in method.state_dict().get("fisher", {}).values():
            tensor.copy_(torch.rand_like(tensor))
    return model


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_closed_form_is_autograds(method: Method) -> None:
    model = moved_network(method)
    method.value(CLOCK).backward()  # type: ignore[union-attr]
    closed = {id(p): g for p, g in method.gradient(CLOCK)}
    for name, p in model.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        assert torch.allclose(closed.get(id(p), torch.zeros_like(p)), expected, rtol=0, atol=1e-10), name
    assert closed


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_state_returns_and_leaves_the_source_alone(method: Method) -> None:
    moved_network(method)
    before, stored, shared = value(method), copy.deepcopy(method.state_dict()), method.state_dict()["anchors"]
    others = {kind: {name: tensor + 1.0 for name, tensor in tensors.items()} for kind, tensors in stored.items()}
    method.load_state_dict(others)
    assert value(method) != before
    assert all(torch.equal(tensor, stored["anchors"][name]) for name, tensor in shared.items()), "others read the source too"
    method.load_state_dict(stored)
    assert value(method) == before


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_frozen_parameters_are_left_alone(method: Method) -> None:
    model = moved_network(method)
    kernel = model[0].weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    before = kernel.clone()
    method.after_step_(CLOCK, lambda parameter: 0.0 if parameter is kernel else 1.0)
    assert torch.equal(before, kernel) and all(p is not kernel for p, _ in method.gradient(CLOCK))


def test_proximal_leaves_new_parameters_to_the_gradient() -> None:
    method = L1SP(alpha=0.5, beta=0.01, solver="proximal")
    model = attached(method, [0.0, 2], [1.0, 2])
    ((parameter, gradient),) = method.gradient(CLOCK)
    assert parameter is model.head.weight and gradient.flatten().tolist() == pytest.approx([0.03, -0.01])
    before = model.head.weight.detach().clone()
    after_step(method, model, 0.1)
    assert torch.equal(before, model.head.weight)
    assert value(method) == pytest.approx(0.5 * 0.95 + 0.05)


def test_proximal_beats_the_subgradient_in_training() -> None:
    """Where few weights should change, only the operator brings weights back to the start exactly."""
    ends = {}
    for solver in ("subgradient", "proximal"):
        method = L1SP(alpha=0.5, beta=0.0, solver=solver)  # type: ignore[arg-type]
        model = attached(method, [1.0, 1, 1], [1.0, 1, 1])
        goal = torch.tensor([1.3, 0.9, 3.0], dtype=torch.float64)
        optimizer = torch.optim.SGD([model.w], lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            (0.5 * (model.w - goal).square().sum()).backward()
            for p, g in method.gradient(CLOCK):
                if p is model.w:
                    model.w.grad.add_(g)  # type: ignore[union-attr]
            optimizer.step()
            method.after_step_(CLOCK, lambda parameter: 0.1)
        ends[solver] = model.w.detach().clone()
    assert ends["proximal"].tolist() == pytest.approx([1, 1, 2.5], abs=1e-5) and ends["proximal"][:2].tolist() == [1.0, 1.0]
    assert ends["subgradient"][0] != 1.0


def test_bfloat16_returns_to_the_start() -> None:
    model = Example([0.3, -1.7]).to(torch.bfloat16)
    start: Tensor = model.w.detach().clone()
    method = L1SP(alpha=1.0, solver="proximal")
    method.attach(Net(model, ("head",), {"w": "w"}), Source(model))
    with torch.no_grad():
        model.w.add_(0.05)
    method.after_step_(CLOCK, lambda parameter: 0.5)
    assert torch.equal(model.w.detach(), start)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1SP(solver="newton"), 'solver must .*"subgradient" or "proximal", found'),  # type: ignore[arg-type]
        (lambda: L1SP(alpha=-1.0), "l1_sp: alpha must .*0, found -1.0"),
        (lambda: L1SP(alpha=True), "alpha must .*0, found True"),
        (lambda: L1SP(scope="bn"), 'scope must .*"all" or "weights", found'),
        (lambda: GroupLassoSP(group="row"), 'group must .*"channel" or "layer", found'),  # type: ignore[arg-type]
        (lambda: GroupLassoSP(fisher=1), "fisher must .*True or False, found"),  # type: ignore[arg-type]
        (lambda: GroupLassoSP(eps=float("nan")), "eps must .*0, found nan"),
        (lambda: GroupLassoSP(fisher=True, solver="proximal"), "no closed proximal operator"),
        (lambda: GroupLassoSP(eps=1e-8, solver="proximal"), "eps must be 0"),
        (lambda: L2SP(orthogonal=0), "orthogonal must .*True or False, found"),  # type: ignore[arg-type]
        (lambda: L2Mixture(decay=float("inf")), "l2_mixture: decay must .*0, found inf"),
        (lambda: L2Mixture(stages=[("a", 1, 1)]), r"stages must .*tuple of \(stage, alpha, decay\)"),  # type: ignore[arg-type]
        (lambda: L2Mixture(stages=(("a", 1),)), r"stages must .*tuple of \(stage, alpha, decay\)"),  # type: ignore[arg-type]
        (lambda: L2Mixture(stages=(("a", 1.0, -1.0),)), "stages must .*0, found .*-1.0"),
        (lambda: L2Mixture(stages=(("a", 1.0, 1.0), ("a", 2.0, 1.0))), "each stage once"),
    ],
)
def test_arguments_are_checked(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("method", ALL, ids=repr)
def test_every_layout_in_memory_gives_the_same_gradient(method: Method) -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        this = copy.deepcopy(method)
        model = moved_network(this)
        names, anchors = list(this.state_dict()["anchors"]), this.state_dict()["anchors"]
        parameters = dict(model.named_parameters())
        for name in names:
            if parameters[name].ndim == 4:
                parameters[name].data = parameters[name].data.contiguous(memory_format=layout)
        before = {name: (parameters[name].detach().clone(), anchors[name].clone()) for name in names}
        found.append({name: dict(this.gradient(CLOCK)).get(parameters[name]) for name in names})
        after = {name: (parameters[name].detach(), anchors[name]) for name in names}
        assert all(torch.equal(old, new) for name in names for old, new in zip(before[name], after[name], strict=True)), "only read"
    for one, other in zip(found[0].values(), found[1].values(), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
