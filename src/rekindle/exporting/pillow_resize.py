"""Pillow's antialiased resize and the crop after it, in tensor operations that any exporter knows, equal to the last bit.

ONNX and torch have resizes of their own, whose weights are rounded otherwise, so that some pixels differ by a grey level and
probabilities by a thousandth. Pillow's arithmetic (`Resample.c`) is simple enough: for each axis a matrix of weights in fixed point
with 22 bits, a product, and a rounding to 8 bits, first along the rows, then along the columns; from Pillow 13 on the other way round
where a picture that shrinks is more than twice as high as wide.
"""

import math

import PIL
import torch
from torch import Tensor, nn

BITS = 22
TALL = 2.0 if int(PIL.__version__.partition(".")[0]) >= 13 else math.inf
A = -0.5  # The coefficient of Pillow's bicubic filter.


def bilinear(x: Tensor) -> Tensor:
    """The triangle filter at distances x.

    Returns:
        Weights of the shape of x.
    """
    return (1 - x).clamp(min=0)


def bicubic(x: Tensor) -> Tensor:
    """Keys' filter at distances x.

    Returns:
        Weights of the shape of x.
    """
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


FILTERS = {"bilinear": bilinear, "bicubic": bicubic}


class ResizeAndCrop(nn.Module):
    """From a picture (H, W, 3) uint8 of any size to the middle (3, S, S) of its resize, whole numbers from 0 to 255 in float32.

    Args:
        edge: Shorter edge after the resize.
        size: S, at most `edge`.
        interpolation: A key of `FILTERS`.
    """

    def __init__(self, edge: int, size: int, interpolation: str) -> None:
        super().__init__()
        self.edge, self.size, self.filter = edge, size, FILTERS[interpolation]

    def forward(self, image: Tensor) -> Tensor:
        height, width = _scalar(image.shape[0]), _scalar(image.shape[1])
        tall = (height > TALL * width) & (self.edge < width)
        values = image.permute(2, 0, 1).double()
        if torch.compiler.is_exporting():  # Elsewhere `cond` compiles both branches anew for each size.
            resized: Tensor = torch.cond(tall, self._columns_first, self._rows_first, (values,))
        else:
            resized = self._columns_first(values) if tall else self._rows_first(values)
        return resized.float()

    def _rows_first(self, values: Tensor) -> Tensor:
        """(3, H, W) to (3, S, S)."""
        shorter = torch.minimum(_scalar(values.shape[1]), _scalar(values.shape[2]))
        rows = self._pass(values, shorter)
        return self._pass(rows.transpose(1, 2), shorter).transpose(1, 2).contiguous()

    def _columns_first(self, values: Tensor) -> Tensor:
        return self._rows_first(values.transpose(1, 2)).transpose(1, 2).contiguous()

    def _pass(self, values: Tensor, shorter: Tensor) -> Tensor:
        """Resize the last axis and cut its middle out: (.., S)."""
        weights = self._weights(values.shape[-1], shorter)
        # The products are whole numbers below 2^53, so float64 holds them exactly.
        sums = values @ weights.T + 2 ** (BITS - 1)
        resized: Tensor = (sums / 2**BITS).floor().clamp(0, 255)
        return resized

    def _weights(self, length: int, shorter: Tensor) -> Tensor:
        """(S, length) in units of 2^-22."""
        old = _scalar(length)
        new = (self.edge * old / shorter).floor()
        corner = ((new - self.size) / 2).round()  # Half to even, as Python's.
        scale = old / new
        centers = (corner + torch.arange(self.size, dtype=torch.float64) + 0.5) * scale
        places = torch.arange(length, dtype=torch.float64) + 0.5
        shares = self.filter((places - centers[:, None]).abs() * (1 / scale.clamp(min=1)))
        shares = shares / shares.sum(1, keepdim=True) * 2**BITS
        fixed: Tensor = (shares + 0.5 * shares.sign()).trunc()
        return fixed


def _scalar(value: int) -> Tensor:
    return torch.scalar_tensor(value, dtype=torch.float64)
