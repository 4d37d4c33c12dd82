"""The quadratic pull that L2 and L2-SP share: strength/2 * ||w - anchor||^2, in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rekindle.method import GradientPairs, require

SCOPES = ("all", "weights")


@dataclass
class Pull:
    """Parameters pulled with one strength towards `anchors`, or towards zero where that is None."""

    parameters: list[nn.Parameter]
    anchors: list[Tensor] | None
    strength: float

    def trainable(self) -> tuple[list[nn.Parameter], list[Tensor] | None]:
        """The part that may move: a frozen parameter contributes nothing and gets no gradient."""
        kept = [i for i, p in enumerate(self.parameters) if p.requires_grad]
        parameters = [self.parameters[i] for i in kept]
        return parameters, None if self.anchors is None else [self.anchors[i] for i in kept]

    def gradient(self) -> GradientPairs:
        """Strength * (w - anchor), in float32 or better."""
        parameters, anchors = self.trainable()
        if not parameters or self.strength == 0:
            return []
        distance = _distances([p.detach() for p in parameters], anchors)
        return list(zip(parameters, torch._foreach_mul(distance, self.strength), strict=True))

    def value(self) -> Tensor:
        """Strength/2 * ||w - anchor||^2, differentiable."""
        parameters, anchors = self.trainable()
        if not parameters:
            return torch.zeros(())
        squares = [d.square().sum() for d in _distances(parameters, anchors)]
        return 0.5 * self.strength * torch.stack(squares).sum()


def _distances(parameters: list[Tensor], anchors: list[Tensor] | None) -> list[Tensor]:
    wide = [p.to(torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    return wide if anchors is None else list(torch._foreach_sub(wide, anchors))


def in_scope(parameters: dict[str, nn.Parameter], scope: str) -> dict[str, nn.Parameter]:
    """All parameters, or for "weights" those with two or more dimensions (no biases, no BatchNorm)."""
    return {name: p for name, p in parameters.items() if scope == "all" or p.ndim >= 2}


def check_strength(owner: str, name: str, value: float) -> None:
    """Refuse NaN, infinity and negative strengths."""
    ok = isinstance(value, int | float) and 0 <= value < float("inf")
    require(ok, f"{owner}: {name} must be a finite number of at least 0, found {value!r}.")


def check_scope(owner: str, scope: str) -> None:
    """Refuse an unknown scope."""
    require(scope in SCOPES, f'{owner}: scope must be "all" or "weights", found {scope!r}.')
