"""Re-initialise the last blocks of a transformer before training.

Zhang, Wu, Katiyar, Weinberger, Artzi: Revisiting Few-sample BERT Fine-tuning, ICLR 2021 (arXiv 2006.05987), section 5: the
blocks nearest the output are too specialised to the pre-training task. Weights ~ N(0, 0.02), biases 0, LayerNorm (1, 0). The
authors' sample command takes L = 5, with bias-corrected Adam at 2e-5 and a tenth of the run as warm-up.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rekindle.errors import number_of
from rekindle.method import Method, Net, Source, require
from rekindle.methods.restarts._draw import forget_source
from rekindle.models.structure import transformer_blocks
from rekindle.rng import keyed_generator

STD = 0.02
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _BatchNorm)


@dataclass
class ReinitTop(Method):
    """Draw the last transformer blocks anew before training; they count as new parameters then.

    Scales of layers (`gamma`) and temperatures keep their values, since the paper's networks have none.

    Args:
        blocks: L, from 0 (nothing happens) to the depth of the network.
        norm: Reset the normalisation behind the last block as well.

    Raises:
        ValueError: For an argument out of range, or a network without transformer blocks or with fewer than asked for.
    """

    blocks: Annotated[int, Ge(0)] = 1
    norm: bool = False

    paper: ClassVar[str] = "Zhang, Wu, Katiyar, Weinberger, Artzi, ICLR 2021, arXiv 2006.05987"
    neutral: ClassVar[dict[str, Any] | None] = {"blocks": 0}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.blocks > 0 or not self.norm, "reinit_top: norm needs blocks of at least 1, found 0.")

    @property
    def redraws_backbone(self) -> bool:
        """Its last blocks, if any."""
        return self.blocks > 0

    def surgery(self, net: Net, source: Source) -> None:
        """Draw in place, and take what was drawn out of the shared parameters."""
        if not self.blocks:
            return
        found = transformer_blocks(net.model)
        kind, depth = type(net.model).__name__, len(found)
        require(depth > 0, f"reinit_top: {kind} has no transformer blocks, which hold attention and a LayerNorm.")
        require(
            self.blocks <= depth,
            f"reinit_top: blocks must be at most the {number_of(depth, 'transformer block')} of the network, found {self.blocks}.",
        )
        chosen = found[-self.blocks :] + ([_norm_behind(net, found)] if self.norm else [])
        stream = keyed_generator(net.seed, "reinit_top")
        drawn = {id(parameter) for name in chosen for parameter in reinitialize_(net.model.get_submodule(name), stream)}
        names = {name for name, parameter in net.parameters().items() if id(parameter) in drawn}
        forget_source(net, names)


@torch.no_grad()
def reinitialize_(module: nn.Module, stream: torch.Generator) -> list[nn.Parameter]:
    """Weights ~ N(0, 0.02), biases 0, normalisation (1, 0), in place; drawn on the CPU, so equal on every device.

    Returns:
        The parameters that have new values.
    """
    changed: list[nn.Parameter] = []
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if _is_norm(part):
                parameter.fill_(1.0 if name == "weight" else 0.0)
            elif parameter.ndim >= 2:
                parameter.copy_(STD * torch.randn(parameter.shape, generator=stream))
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                continue
            changed.append(parameter)
        if isinstance(part, _BatchNorm):
            part.reset_running_stats()
    return changed


def _is_norm(part: nn.Module) -> bool:
    return isinstance(part, NORMS)


def _norm_behind(net: Net, blocks: list[str]) -> str:
    """Name of the last normalisation behind the last block."""
    names: list[str] = [name for name, _ in net.model.named_modules()]
    behind = names[names.index(blocks[-1]) + 1 :]
    outside = [
        name for name in behind if not name.startswith(f"{blocks[-1]}.") and not name.startswith(tuple(f"{head}." for head in net.head))
    ]
    found = [name for name in outside if name not in net.head and _is_norm(net.model.get_submodule(name))]
    require(bool(found), f"reinit_top: {type(net.model).__name__} has no normalisation behind its last block; leave norm out.")
    return found[-1]
