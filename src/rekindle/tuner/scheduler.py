"""The learning-rate scheduler that delivers the methods' factors."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rekindle.errors import number_of
from rekindle.method import require


class TunerScheduler(LRScheduler):
    """Base learning rates times the methods' factors: closed form in the epoch, so resuming needs no history.

    Args:
        optimizer: Its groups are named "backbone" and "head".
        factor: (group, epoch, step) -> factor.
    """

    def __init__(self, optimizer: Optimizer, factor: Callable[[str, int, int], float]) -> None:
        self._factor = factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Rates at the first step of the present epoch."""
        return self._rates(self.last_epoch, 0)

    def refresh(self, epoch: int, step: int) -> None:
        """Set the rates of a step inside an epoch, for schedules that change by step."""
        for group, rate in zip(self.optimizer.param_groups, self._rates(epoch, step), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Epochs done and base rates."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after that many epochs."""
        self.last_epoch, self.base_lrs = state["last_epoch"], list(state["base_lrs"])
        self.refresh(self.last_epoch, 0)

    def _rates(self, epoch: int, step: int) -> list[float | Tensor]:
        began, now = len(self.base_lrs), len(self.optimizer.param_groups)
        require(
            began == now,
            f"the optimiser began with {number_of(began, 'parameter group')} and has {now}: the tuner knows no rate for a group that is added in training; "
            "build all groups by tuner.param_groups() while nothing is frozen, and freeze with the method freeze or lp_ft.",
        )
        groups = zip(self.base_lrs, self.optimizer.param_groups, strict=True)
        return [float(base * self._factor(group["name"], epoch, step)) for base, group in groups]
