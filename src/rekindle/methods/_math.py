"""Small arithmetic that several methods do the same way."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In float32 or better: sums and squares in half precision lose what is small."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def safe_divide(x: Tensor, length: Tensor) -> Tensor:
    """x / length; where the length is 0, x as it is, which is 0 there in most uses.

    The quotient and its gradient would be NaN or infinite at 0, so that the division is by 1 there.

    Args:
        x: Of any shape.
        length: At least 0, of a shape that broadcasts with that of `x`.
    """
    return x / nonzero(length)


def nonzero(length: Tensor) -> Tensor:
    """A length to divide by: 1 where it is 0."""
    return torch.where(length > 0, length, torch.ones_like(length))
