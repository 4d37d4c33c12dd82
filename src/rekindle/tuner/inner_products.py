"""Inner products of gradients, in one pass over memory and without copies."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rekindle.methods._math import wide

BLOCK = 2**16  # Numbers: a block of each of two tensors fits into a processor's own cache.
SAFE = (1e-25, 1e30)  # Of a sum of squares in float32: below, most of them may have become 0; above, some may be infinite.

Products = tuple[float, float, float]


def inner_products(first: Sequence[Tensor], second: Sequence[Tensor | None]) -> list[Products]:
    """<a, a>, <a, b> and <b, b> of each pair, a missing b counting as zero.

    Blocks are multiplied in float32 or better and added up in float64, so that the error is that of some ten thousand terms in float32,
    measured at 4e-8, whatever the size of the tensors. Where float32 has no room for the squares, the blocks are float64 as well.

    Args:
        first: Tensors a, of any floating type.
        second: As many tensors b, each of its a's shape, or None.

    Returns:
        One triple of numbers a pair, in order.
    """
    found = _added_up(first, second, torch.float32)
    again = [row for row, (aa, _, bb) in enumerate(found) if not (_is_safe(aa) and (second[row] is None or _is_safe(bb)))]
    if again:
        exact = _added_up([first[row] for row in again], [second[row] for row in again], torch.float64)
        for row, products in zip(again, exact, strict=True):
            found[row] = products
    return found


def _is_safe(squares: float) -> bool:
    return SAFE[0] < squares < SAFE[1]


def _added_up(first: Sequence[Tensor], second: Sequence[Tensor | None], dtype: torch.dtype) -> list[Products]:
    dots: list[Tensor] = []
    ends = []
    for a, b in zip(first, second, strict=True):
        for x, y in _blocks(a, a if b is None else b):
            x, y = (wide(part).to(torch.promote_types(part.dtype, dtype)) for part in (x, y))
            x, y = x.to(y.dtype), y.to(x.dtype)
            dots += [torch.dot(x, x)] if b is None else [torch.dot(x, x), torch.dot(x, y), torch.dot(y, y)]
        ends.append(len(dots))
    numbers = torch.stack(dots).tolist() if dots else []  # The only moment at which a GPU is waited for.
    pieces = [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [
        (sum(piece), 0.0, 0.0) if b is None else (sum(piece[::3]), sum(piece[1::3]), sum(piece[2::3]))
        for piece, b in zip(pieces, second, strict=True)
    ]


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Equal stretches of both, in the order in which `a` lies in memory, where a view does; a GPU takes all at once."""
    axes = sorted(range(a.ndim), key=a.stride, reverse=True)
    flat = [tensor.permute(axes).reshape(-1) for tensor in (a, b)]
    return zip(*(tensor.split(BLOCK if a.device.type == "cpu" else max(a.numel(), 1)) for tensor in flat), strict=True)
