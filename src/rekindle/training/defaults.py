"""What a run does where nothing else was asked: its length, its optimizer, its precision."""

from typing import Any

import torch

from rekindle.errors import UserError


def automatic_epochs(images: int) -> int:
    """The papers' 40 epochs for up to 1,200 training images, fewer for more, at least 10: about 48,000 images in all."""
    return max(10, min(40, 48_000 // images))


def make_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Any optimiser of torch.optim by name; those that know momentum get 0.9, as the papers."""
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


def bf16_is_fast() -> bool:
    """Whether the GPU, or the processor by AMX or AVX512-BF16, multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
