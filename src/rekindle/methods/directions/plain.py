"""The plain sum of the loss's gradient and the regulariser's."""

from dataclasses import dataclass
from typing import ClassVar

from rekindle.method import Direction


@dataclass(frozen=True)
class PlainSum(Direction):
    """The ordinary sum g + h."""

    paper: ClassVar[str] = "gradient descent on loss plus penalty"

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """(1, 1), whatever the angle."""
        return 1.0, 1.0
