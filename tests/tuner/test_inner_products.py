"""Inner products: against float64, for every type, layout and scale, with no copy of a whole tensor."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rekindle.tuner.inner_products import BLOCK, inner_products

TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}
SCALES = {torch.float64: 1e100, torch.float32: 1e30, torch.bfloat16: 1e30, torch.float16: 10.0}


def exact(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.fsum((a.double() * b.double()).flatten().tolist())


def check(a: torch.Tensor, b: torch.Tensor | None) -> None:
    [(aa, ab, bb)] = inner_products([a], [b])
    b = torch.zeros_like(a) if b is None else b
    slack = TOLERANCE[torch.promote_types(a.dtype, b.dtype)]
    assert aa == pytest.approx(exact(a, a), rel=slack) and bb == pytest.approx(exact(b, b), rel=slack)
    assert ab == pytest.approx(exact(a, b), abs=slack * math.sqrt(aa) * math.sqrt(bb))


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(0, 5), max_size=4), dtype=st.sampled_from(list(SCALES)), up=st.booleans(), layouts=st.permutations(range(4)), seed=st.integers(0, 99)
)  # fmt: skip
def test_any_shape_type_scale_and_layout(shape: list[int], dtype: torch.dtype, up: bool, layouts: list[int], seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    scale = SCALES[dtype] if up else 1 / SCALES[dtype]
    a, b = (scale * torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype) for _ in range(2))
    if len(shape) == 4:
        back = [layouts.index(axis) for axis in range(4)]
        b = b.permute(layouts).contiguous().permute(back)
    check(a, b)
    check(b, None)


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_several_blocks(size: int) -> None:
    stream = torch.Generator().manual_seed(0)
    a, b = (torch.rand(size, generator=stream) + 0.5 for _ in range(2))
    check(a, b)


def test_what_is_not_finite_stays_so() -> None:
    for value in (math.nan, math.inf):
        [(aa, _, bb)] = inner_products([torch.tensor([1.0, value])], [torch.ones(2)])
        assert not math.isfinite(aa) and bb == 2


def test_rows_do_not_mix() -> None:
    found = inner_products([torch.ones(2), torch.full((3,), 1e-30), torch.ones(1)], [None, torch.ones(3), torch.full((1,), 2.0)])
    assert found == [(2.0, 0.0, 0.0), (pytest.approx(3e-60), pytest.approx(3e-30), 3.0), (1.0, 2.0, 4.0)]
    assert inner_products([], []) == []


def test_large_tensors_are_read_where_they_lie() -> None:
    a, b = (torch.ones(3, 3, 256, 64).permute(3, 2, 0, 1) for _ in range(2))
    with torch.profiler.profile(profile_memory=True) as found:
        inner_products([a], [b])
    assert max(event.self_cpu_memory_usage for event in found.events() if event.name != "[memory]") < a.numel()
