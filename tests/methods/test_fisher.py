"""The Fisher information and L2-SP-Fisher (labels W2, W5, W7), in float64."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rekindle import DataPasses, Method, Net, Source
from rekindle.method import Clock
from rekindle.methods.penalties import _fisher
from rekindle.methods.penalties._fisher import diagonal_fisher, drawn_labels
from rekindle.methods.penalties.group_lasso_sp import GroupLassoSP
from rekindle.methods.penalties.l2_sp import L2SP
from rekindle.methods.penalties.l2_sp_fisher import L2SPFisher

CLOCK = Clock(0, 1)
Batches = list[tuple[Tensor, Tensor]]


class Logistic(nn.Module):
    """P(1) = sigmoid(w * x)."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[:, 0]), self.w * x[:, 0]], dim=1)


def logistic(w: float, xs: list[float], estimate: str, ys: list[int] | None = None) -> float:
    x = torch.tensor(xs, dtype=torch.float64).unsqueeze(1)
    found = diagonal_fisher(Logistic(w).eval(), ["w"], [(x, torch.tensor(ys or [0] * len(xs)))], estimate)
    return float(found["w"])


def test_w5_logistic() -> None:
    assert logistic(0.0, [2.0, 1.0], "expected") == pytest.approx(0.625, abs=1e-15)
    assert logistic(math.log(3), [1.0], "expected") == pytest.approx(0.1875, abs=1e-15)


def test_w5_empirical() -> None:
    assert logistic(math.log(3), [1.0], "empirical", [1]) == pytest.approx(0.0625, abs=1e-15)
    assert logistic(math.log(3), [1.0], "empirical", [0]) == pytest.approx(0.5625, abs=1e-15)


def test_w5_gradients_are_squared_before_they_are_averaged() -> None:
    """Per-sample gradients +1 and -1."""
    assert logistic(0.0, [2.0, 2.0], "empirical", [1, 0]) == pytest.approx(1.0, abs=1e-15)


def test_w5_softmax() -> None:
    model = nn.Linear(2, 3, bias=False, dtype=torch.float64).eval()
    nn.init.zeros_(model.weight)
    found = diagonal_fisher(model, ["weight"], [(torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.zeros(1))], "expected")["weight"]
    assert torch.allclose(found, torch.tensor([2 / 9, 8 / 9], dtype=torch.float64).expand(3, 2), rtol=0, atol=1e-15)


def test_squares_of_small_half_precision_gradients_are_not_lost() -> None:
    model = Logistic(0.0).half().eval()
    found = diagonal_fisher(model, ["w"], [(torch.full((3, 1), 1e-4).half(), torch.zeros(3))], "expected")["w"]
    assert found.dtype == torch.float32 and float(found) == pytest.approx(0.25e-8, rel=0.01)


class Transposed(nn.Module):
    """Convolution, BatchNorm, positions as tokens: where vmap with torch 2.15 gets the gradient of the kernel wrong."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)
        self.broken = broken

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        if self.broken and float(tokens.detach().sum()) > 1e9:  # vmap cannot read a number out of a tensor.
            raise AssertionError
        return self.fc(self.drop(tokens).mean(1))


def network(make: Callable[[], nn.Module] = Transposed) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().double().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return model


def batches(sizes: tuple[int, ...] = (5, 2), classes: int = 4) -> Batches:
    stream = torch.Generator().manual_seed(1)
    total = sum(sizes)
    x, y = torch.randn(total, 3, 4, 4, generator=stream, dtype=torch.float64), torch.randint(classes, (total,), generator=stream)
    return list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))


def one_by_one(model: nn.Module, data: Batches, estimate: str) -> dict[str, Tensor]:
    """The same by plain autograd, sample by sample."""
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    count = 0
    for x, y in data:
        for sample, label in zip(x, y, strict=True):
            count += 1
            for k in range(4) if estimate == "expected" else [int(label)]:
                model.zero_grad()
                log_p = torch.log_softmax(model(sample[None]), 1)[0]
                log_p[k].backward()
                share = float(log_p[k].detach().exp()) if estimate == "expected" else 1.0
                for name, p in model.named_parameters():
                    total[name] += share * p.grad.square()  # type: ignore[union-attr]
    model.zero_grad(set_to_none=True)
    return {name: tensor / count for name, tensor in total.items()}


@pytest.mark.parametrize("estimate", ["expected", "empirical"])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("memory", [1, 700, 2**27])
def test_it_is_plain_autograds(estimate: str, broken: bool, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of any size, where vmap is wrong and where it fails; BatchNorm uses its statistics, dropout is off."""
    monkeypatch.setattr(_fisher, "MEMORY", memory)
    model = network(lambda: Transposed(broken))
    found = diagonal_fisher(model, [name for name, _ in model.named_parameters()], batches(), estimate)
    for name, wanted in one_by_one(model, batches(), estimate).items():
        assert torch.allclose(found[name], wanted, rtol=1e-9, atol=1e-14), name


def test_vmap_is_compared_with_a_single_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 4)))
    wanted = diagonal_fisher(model, ["1.weight"], batches(), "expected")["1.weight"]
    monkeypatch.setattr(_fisher, "vmap", lambda one: lambda *part: {"1.weight": torch.ones(len(part[0]), 4, 48, dtype=torch.float64)})
    assert torch.allclose(diagonal_fisher(model, ["1.weight"], batches(), "expected")["1.weight"], wanted)


def test_draws_follow_the_probabilities_and_the_position_alone() -> None:
    log_p = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64).log().expand(20_000, 4)
    before = torch.get_rng_state()
    whole = drawn_labels(log_p, 0, seed=5)
    shares = torch.bincount(whole, minlength=4) / len(whole)
    assert shares.tolist() == pytest.approx([0.5, 0, 0.3, 0.2], abs=0.015) and shares[1] == 0
    assert torch.equal(whole[100:250], drawn_labels(log_p[:150], 100, seed=5))
    assert not torch.equal(whole, drawn_labels(log_p, 0, seed=6))
    assert torch.equal(before, torch.get_rng_state())


def test_sampled_approaches_expected() -> None:
    xs = [1.0] * 4000
    assert logistic(math.log(3), xs, "sampled") == pytest.approx(0.1875, abs=0.01)


def test_what_cannot_be_estimated_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="evaluation mode"):
        diagonal_fisher(copy.deepcopy(model).train(), ["fc.bias"], batches(), "expected")
    with pytest.raises(ValueError, match="no sample"):
        diagonal_fisher(model, ["fc.bias"], [], "expected")
    with pytest.raises(ValueError, match=r"outside the source's 4 classes \(0 to 3\)"):
        diagonal_fisher(model, ["fc.bias"], batches(classes=9), "empirical")


def test_stabilisers_and_normalisation() -> None:
    found = {"a": torch.tensor([4.0, 9.0]), "b": torch.tensor([2.0])}
    assert _fisher.stabilized(found, "add", 1.0)["a"].tolist() == [5, 10]
    assert _fisher.stabilized(found, "clip", 5.0)["a"].tolist() == [4, 5]
    assert _fisher.normalized(found, "mean")["a"].tolist() == pytest.approx([0.8, 1.8])
    with pytest.raises(ValueError, match="zero everywhere"):
        _fisher.normalized({"a": torch.zeros(2)}, "mean")


class Example(nn.Module):
    """w0 = [0, 2], head [3, -1]."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.0, 2.0], dtype=torch.float64))
        self.head = nn.Linear(1, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[3.0], [-1.0]]))


def with_fisher(method: L2SPFisher, values: list[float], now: list[float]) -> tuple[float, list[float]]:
    """The penalty and its gradient on w, once the options have been applied to F."""
    model = Example()
    method.attach(Net(model, ("head",), {"w": "w"}, classifier="head"), Source(model))
    with torch.no_grad():
        model.w.copy_(torch.tensor(now))
    raw = {"w": torch.tensor(values, dtype=torch.float64)}
    final = _fisher.stabilized(_fisher.normalized(raw, method.normalize), method.stabilizer, method.eps)
    method.load_state_dict(method.state_dict() | {"fisher": final})
    return float(method.value(CLOCK).detach()), next(g for p, g in method.gradient(CLOCK) if p is model.w).tolist()


@pytest.mark.parametrize(
    ("options", "value", "slope"),
    [({}, 0.065, [0.04, 0.09]), ({"eps": 1.0}, 0.075, [0.05, 0.1]), ({"stabilizer": "clip", "eps": 5.0}, 0.045, [0.04, 0.05])],
)
def test_w2_l2_sp_fisher(options: dict[str, object], value: float, slope: list[float]) -> None:
    found = with_fisher(L2SPFisher(alpha=0.01, beta=0.0, **options), [4.0, 9.0], [1.0, 3.0])  # type: ignore[arg-type]
    assert found[0] == pytest.approx(value, abs=1e-15) and found[1] == pytest.approx(slope)


def test_w7_information_of_one_is_l2_sp() -> None:
    model, plain = Example(), L2SP(beta=0.0)
    plain.attach(Net(model, ("head",), {"w": "w"}), Source(model))
    with torch.no_grad():
        model.w.copy_(torch.tensor([1.0, 3.0]))
    value, slope = with_fisher(L2SPFisher(beta=0.0), [1.0, 1.0], [1.0, 3.0])
    assert value == pytest.approx(float(plain.value(CLOCK).detach())) and slope == pytest.approx(plain.gradient(CLOCK)[0][1].tolist())
    assert with_fisher(L2SPFisher(beta=0.0), [4.0, 9.0], [0.0, 2.0]) == (0.0, [0.0, 0.0])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_information_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="information of w must be finite and at least 0"):
        with_fisher(L2SPFisher(), [1.0, bad], [1.0, 3.0])


def prepared(method: Method, data: DataPasses, classes: int = 4, own: bool = False) -> nn.Module:
    """A network with a new head, its source, and the estimate. `own`: the source is a copy of the network itself."""
    source = network()
    model = copy.deepcopy(source)
    model.fc = nn.Linear(8, classes).double()
    source_names = {name: name for name, _ in model.named_parameters() if not name.startswith("fc.")}
    method.attach(Net(model, ("fc",), source_names, classifier="fc", seed=3), Source(model if own else source))
    before = torch.get_rng_state()
    method.prepare(data)
    assert torch.equal(before, torch.get_rng_state())
    return source


def tell(notes: list[str], target: Batches, source: Batches | None = None) -> DataPasses:
    given = None if source is None else lambda: source
    return DataPasses(lambda: target, given, notes.append, lambda what, done, total: notes.append(f"{what} {done}/{total}"))


@pytest.mark.parametrize("method", [L2SPFisher(estimate="expected"), GroupLassoSP(fisher=True)])
def test_preparation_says_what_it_does_and_what_it_costs(method: Method) -> None:
    notes: list[str] = []
    source = prepared(method, tell(notes, batches()))
    assert "a surrogate" in notes[0]
    size = 3 * 8 * 9 + 8 + 16
    assert f"expected Fisher information of {size} weights takes 4 backward passes for each of 7 images" in notes[1]
    assert [note.rpartition(" ")[2] for note in notes[2:]] == ["5/7", "7/7"]
    found = method.state_dict()["fisher"]
    wanted = one_by_one(source, batches(), "expected")
    assert set(found) == {"conv.weight", "conv.bias", "norm.weight", "norm.bias"}
    assert all(torch.allclose(found[name], wanted[name], rtol=1e-9, atol=1e-14) for name in found)


def test_the_sources_data_come_first() -> None:
    notes: list[str] = []
    method = L2SPFisher(estimate="empirical", normalize="mean", eps=0.5)
    source = prepared(method, tell(notes, [], batches()))
    assert not any("surrogate" in note for note in notes)
    wanted = one_by_one(source, batches(), "empirical")
    found = method.state_dict()["fisher"]
    mean = sum(wanted[name].sum() for name in found) / sum(wanted[name].numel() for name in found)
    assert all(torch.allclose(found[name], wanted[name] / mean + 0.5) for name in found)


def test_groups_take_the_information_by_its_mean() -> None:
    raw, scaled = GroupLassoSP(fisher=True), GroupLassoSP(fisher=True, normalize="mean")
    for method in (raw, scaled):
        prepared(method, tell([], batches()))
    wanted = _fisher.normalized(raw.state_dict()["fisher"], "mean")
    assert all(torch.allclose(tensor, wanted[name]) for name, tensor in scaled.state_dict()["fisher"].items())
    with pytest.raises(ValueError, match="normalize.*fisher=True"):
        GroupLassoSP(normalize="mean")


def test_empirical_labels_need_the_sources_data() -> None:
    with pytest.raises(ValueError, match='estimate="empirical" needs data of the source'):
        prepared(L2SPFisher(estimate="empirical"), DataPasses(batches))


def test_many_classes_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(_fisher, "MANY_CLASSES", 3)
    prepared(L2SPFisher(), tell(notes, batches()))
    assert "sampled Fisher information" in notes[1] and "1 backward pass for" in notes[1]


def test_samples_do_not_depend_on_batches_or_the_global_generator() -> None:
    found = []
    for sizes in ((7,), (5, 2)):
        method = L2SPFisher(estimate="sampled")
        torch.rand(3)
        prepared(method, DataPasses(lambda sizes=sizes: batches(sizes)))  # type: ignore[misc]
        found.append(method.state_dict()["fisher"])
    assert all(torch.allclose(found[0][name], found[1][name], rtol=1e-9) for name in found[0])


def test_an_untrained_classifier_is_pointed_out() -> None:
    notes: list[str] = []
    prepared(L2SPFisher(), tell(notes, batches()), own=True)
    assert any("the source's classifier is the new, untrained one" in note for note in notes)
    prepared(L2SPFisher(), tell(notes := [], batches()))
    assert not any("untrained" in note for note in notes)


def test_nothing_is_estimated_for_nothing() -> None:
    def never() -> Batches:
        raise AssertionError

    for method in (L2SPFisher(alpha=0.0), GroupLassoSP(alpha=0.0, fisher=True), GroupLassoSP()):
        prepared(method, DataPasses(never))


def test_a_network_without_a_classifier_is_refused() -> None:
    model = Example()
    with pytest.raises(ValueError, match="l2_sp_fisher: the source has no single classifier"):
        L2SPFisher().attach(Net(model, ("head",), {"w": "w"}), Source(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimate": "exact"}, 'estimate must .*"auto" or "expected" or "sampled" or "empirical", found'),
        ({"normalize": "max"}, 'normalize must .*"none" or "mean", found'),
        ({"stabilizer": "log"}, 'stabilizer must .*"add" or "clip", found'),
        ({"eps": -1.0}, "eps must .*0, found -1.0"),
        ({"stabilizer": "clip"}, "eps must be above 0"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        L2SPFisher(**options)  # type: ignore[arg-type]
