"""What a run chooses by itself: the head's rate by its start, its features and its methods."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from rekindle.analysis.linear_probe import LinearProbe
from rekindle.fitting.choices import WARM_MULTIPLE, Choices, choose, with_head_rate
from rekindle.fitting.look import Look
from rekindle.registry import parse
from rekindle.spec import RunSpec
from rekindle.tuner.head_rate import head_rate

BARE, NORMALISED = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
PROBE = LinearProbe(torch.zeros(2, 3).double(), torch.zeros(2).double(), 0.5, 1e-3)
LR = 0.002


def chosen(mean_square: float, method: str = "l2", module: nn.Module = BARE, **options: Any) -> Choices:
    spec = RunSpec(**{"data": "photos", "method": method, "lr": LR, "optimizer": "SGD", **options})
    look = Look(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), PROBE, mean_square)
    methods = parse(method)
    return with_head_rate(choose(spec, 100, methods, look, "batch"), spec, methods, look, module)


def test_a_network_that_normalises_leaves_the_head_its_own_rate() -> None:
    assert chosen(80.0, module=NORMALISED).head_lr == pytest.approx(head_rate(80.0))


@pytest.mark.parametrize(("mean_square", "limit"), [(80.0, WARM_MULTIPLE * LR), (100_000.0, head_rate(100_000.0))])
def test_a_fitted_head_follows_the_backbone_no_faster_than_it_could_be_fitted(mean_square: float, limit: float) -> None:
    assert chosen(mean_square).head_lr == pytest.approx(limit)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("l2", {"head_init": "random"}),
        ("l2", {"head_init": "zero"}),
        ("l2+rifle(periods=2)", {}),
        ("l2+rifle(when='fitted')", {}),
        ("l2+rifle_a", {}),
    ],
)
def test_a_head_that_has_to_be_fitted_has_its_own_rate(method: str, options: dict[str, Any]) -> None:
    assert chosen(80.0, method, **options).head_lr == pytest.approx(head_rate(80.0))


@pytest.mark.parametrize(("head_lr", "wanted"), [(0.3, 0.3), ("x20", 20 * LR), ("tied", LR)])
def test_a_rate_that_was_asked_for_is_taken(head_lr: float | str, wanted: float) -> None:
    assert chosen(80.0, head_lr=head_lr).head_lr == pytest.approx(wanted)


def test_the_rate_is_found_again_where_the_head_could_not_start_at_the_probe() -> None:
    spec = RunSpec(data="photos", lr=LR, optimizer="SGD")
    look = Look(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), PROBE, 80.0)
    made = replace(choose(spec, 100, [], look, "batch"), head_init="random")
    assert with_head_rate(made, spec, [], look, BARE).head_lr == pytest.approx(head_rate(80.0))


@pytest.mark.parametrize("method", ["rifle(periods=1)", "rifle_b"])
def test_a_cycle_alone_draws_no_head(method: str) -> None:
    assert chosen(80.0, f"l2+{method}").head_lr == pytest.approx(WARM_MULTIPLE * LR)
