"""What a run does where nothing else was asked: its length, its learning rate, its optimizer."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.errors import UserError
from rekindle.spec import RunSpec

PRETRAINED_LR, SCRATCH_LR, ADAPTIVE_LR = 0.003, 0.1, 1e-4
"""Learning rates of the backbone: SGD from pre-trained weights and from random ones, and optimisers that scale gradients themselves."""

LEAST_STEPS, MOST_IMAGES = 300, 48_000


def automatic_epochs(images: int, batch_size: int) -> int:
    """Epochs of at least `LEAST_STEPS` optimiser steps in all, or the papers' 40 where those are more; at least 10, about 48,000 images.

    Args:
        images: Training images.
        batch_size: Images a step.

    Returns:
        A count of at least 10.

    Examples:
        >>> automatic_epochs(images=100, batch_size=32), automatic_epochs(images=5000, batch_size=32)
        (75, 10)
    """
    steps = -(-images // batch_size)
    return max(10, min(max(40, -(-LEAST_STEPS // steps)), MOST_IMAGES // images))


def automatic_lr(optimizer: str, pretrained: bool) -> float:
    """The backbone's learning rate where none was given.

    Returns:
        A rate above 0.
    """
    if optimizer not in ("SGD", "ASGD"):
        return ADAPTIVE_LR if pretrained else 10 * ADAPTIVE_LR
    return PRETRAINED_LR if pretrained else SCRATCH_LR


def released_epochs(images: int) -> int:
    """What rekindle 0.1.0 chose: the papers' 40 epochs for up to 1,200 training images, fewer for more, at least 10.

    Returns:
        A count from 10 to 40.

    Examples:
        >>> released_epochs(100), released_epochs(10000)
        (40, 10)
    """
    return max(10, min(40, MOST_IMAGES // images))


def optimizer_for(spec: RunSpec, module: nn.Module) -> str:
    """The optimiser that a run asks for, or that suits its network.

    Returns:
        A name in torch.optim.
    """
    return suitable_optimizer(module) if spec.optimizer == "auto" else spec.optimizer


def decoupled_by(spec: RunSpec) -> bool | None:
    """What a run says of its penalties on weights, as `Tuner(decoupled=...)` takes it.

    Returns:
        None where the optimiser decides.
    """
    return None if spec.penalties == "auto" else spec.penalties == "decoupled"


def suitable_optimizer(module: nn.Module) -> str:
    """ "AdamW" for a network that normalises by LayerNorm, such as vision transformers and ConvNeXt; "SGD" for any other.

    Kumar, Shen, Bubeck, Gunasekar: How to Fine-Tune Vision Models with SGD (arXiv 2211.09359): AdamW leads SGD on ViT, DINO, CLIP and
    ConvNeXt, whose first layer has much larger gradients than the others, and not on ResNets.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.LayerNorm | nn.RMSNorm | _BatchNorm)]
    return "AdamW" if any(not isinstance(part, _BatchNorm) for part in norms) else "SGD"


def make_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Any optimiser of torch.optim by name; those that know momentum get 0.9, as the papers.

    Returns:
        The optimiser, on the groups that were given.
    """
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)) or kind is torch.optim.Optimizer:
        known = sorted(
            n for n, k in vars(torch.optim).items() if isinstance(k, type) and issubclass(k, torch.optim.Optimizer) and n != "Optimizer"
        )
        raise UserError(f"--optimizer {name!r} is not in torch.optim; it has {', '.join(known)}.")
    if name in ("LBFGS", "SparseAdam"):
        raise UserError(f"--optimizer {name} needs another kind of step (a closure or sparse gradients); try SGD or AdamW.")
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    optimizer: torch.optim.Optimizer = kind(groups, **options)
    return optimizer
