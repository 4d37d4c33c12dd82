"""Weighted means of networks that share their start: their weights, and BatchNorm's statistics estimated again.

What BatchNorm saw of one network's activations says little of those of a mean (Izmailov and others, UAI 2018, arXiv 1803.05407, section
3.2), so that its running statistics are taken anew wherever those of the networks differ. Where they are equal, as in runs with frozen
statistics, they belong to the weights and stay.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.data import order, split_batches
from rekindle.data.samples import Samples
from rekindle.method import require

Weights = Mapping[str, Tensor]


def mean_weights(ends: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of state dicts, added up in float64; what is no floating-point number, such as a count, is the first's.

    Args:
        ends: State dicts with the same keys and shapes, at least one.
        shares: A weight for each; they sum to 1.

    Raises:
        ValueError: If they do not fit together.
    """
    require(
        len(ends) == len(shares) > 0 and abs(sum(shares) - 1) < 1e-9,
        f"a mean needs a share for each network, in all 1, found {list(shares)}.",
    )
    return {
        name: _mean([end[name] for end in ends], shares) if value.is_floating_point() else value.clone() for name, value in ends[0].items()
    }


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        if share:  # Nothing of a network that has no share, were it infinite.
            total.add_(tensor.to(total), alpha=share)
    return total.to(tensors[0].dtype)


def differing_norms(model: nn.Module, ends: Sequence[Weights]) -> list[_BatchNorm]:
    """The BatchNorm layers of a network whose running statistics differ between state dicts of it."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            keys = [f"{name}.{leaf}" if name else leaf for leaf in ("running_mean", "running_var")]
            if any(not torch.equal(end[key].cpu(), ends[0][key].cpu()) for end in ends for key in keys):
                found.append(module)
    return found


def first_views(train: Samples, batch_size: int, seed: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of training pictures as a run's first epoch shows them, for `reestimate_`."""
    for rows in split_batches(len(train), batch_size, order(len(train), seed, 0)):
        yield train.training(rows, seed, 0, device)[0]


@torch.no_grad()
def reestimate_(model: nn.Module, norms: Sequence[_BatchNorm], batches: Iterable[Tensor]) -> None:
    """Take the running statistics of some BatchNorm layers anew: the mean over batches, all else in evaluation mode.

    Args:
        model: Left in evaluation mode.
        norms: Layers of it; with none, nothing is computed.
        batches: Inputs of training pictures, of at least two each.
    """
    model.eval()
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # The plain mean of all batches.
        norm.train()
    for x in batches:
        model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
