"""Sharpness-aware minimisation: the gradient is taken where the loss nearby is worst, and the step made from here.

Foret, Kleiner, Mobahi, Neyshabur: Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021 (arXiv 2010.01412),
section 2 and Algorithm 1: with the gradient g of the loss at w, the step goes along the loss's gradient at w + rho * g / ||g||.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from rekindle.method import Clock, Method
from rekindle.methods._math import wide
from rekindle.spec import NonNegative

SMALLEST = 1e-12  # Added to the gradient's length, as in a port of the method to PyTorch; the authors' code adds nothing.


@dataclass
class SAM(Method):
    """Take the loss's gradient at the worst weights within a distance of rho, to the first order.

    Args:
        rho: The distance, at least 0; published is 0.05. With 0 nothing happens, and no second pass is made.

    Raises:
        ValueError: If the distance is out of range.
    """

    rho: NonNegative = 0.05

    name: ClassVar[str] = "sam"
    paper: ClassVar[str] = "Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021, arXiv 2010.01412"
    neutral: ClassVar[dict[str, Any] | None] = {"rho": 0.0}

    def perturb_(self, clock: Clock, parameters: list[nn.Parameter]) -> bool:
        """w <- w + rho * g / ||g||, over all parameters as one vector."""
        gradients = [wide(p.grad) for p in parameters if p.grad is not None]
        if not self.rho or not gradients:
            return False
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_add_([*parameters], [*torch._foreach_mul(gradients, self.rho / (length + SMALLEST))])
        return True
