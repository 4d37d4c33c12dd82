"""Stochastic depth: residual branches that fall away at random while training.

Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth, ECCV 2016 (arXiv 1603.09382), section 3; a comparison
method of Li et al., RIFLE, ICML 2020 (arXiv 2007.03349), Table 1.

The branch of block l of L survives with probability p_l = 1 - l/L * (1 - p_L); its shortcut stays. The paper draws once a
batch, leaves survivors as they are in training and multiplies branches by p_l at test time; on a pre-trained network that
would change what it was trained to compute, so the default divides by p_l in training instead.

A fallen branch is computed all the same and multiplied by 0, so that every parameter has a gradient on every rank; its
BatchNorms use running statistics then, and leave them as they are.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.method import Clock, Method, Net, Source
from rekindle.models.structure import ResidualBlock, residual_blocks

Mode = Literal["batch", "sample"]
Scaling = Literal["train", "test"]


@dataclass
class StochasticDepth(Method):
    """Drop residual branches at random in training, late ones more often than early ones.

    A network's own drop path, where it has one, is switched off. In a transformer block both branches share its probability;
    "batch" drops them together, "sample" draws for each.

    Args:
        p_last: Probability that the last block survives, above 0, up to 1 (nothing happens).
        first_block_always: Let the first block survive always, as the text of RIFLE says; the original code does not.
        mode: "batch" draws once a step for all images and ranks, as the paper; "sample" draws for each image.
        scaling: "train" divides surviving branches by their probability; "test" multiplies all branches by it in evaluation
            instead, as the paper, which changes what a pre-trained network computes.

    Raises:
        ValueError: For an argument out of range, or a network without a residual block that is known.
    """

    p_last: Annotated[float, Interval(gt=0, le=1)] = 0.5
    first_block_always: bool = False
    mode: Mode = "batch"
    scaling: Scaling = "train"

    paper: ClassVar[str] = "Huang, Sun, Liu, Sedra, Weinberger, ECCV 2016, arXiv 1603.09382"
    neutral: ClassVar[dict[str, Any] | None] = {"p_last": 1.0}

    def surgery(self, net: Net, source: Source) -> None:
        """Hang a gate on each residual block."""
        self._gates: list[Gate] = []
        if self.p_last == 1:
            return
        blocks = residual_blocks(net.model, "stochastic_depth")
        chances = survival(len(blocks), self.p_last, self.first_block_always)
        self._gates = [Gate(chance, self.mode, self.scaling) for chance in chances]
        for gate, block in zip(self._gates, blocks, strict=True):
            attach_gate(gate, block)

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Draw which blocks survive the step, equally on all ranks."""
        if self.mode == "batch" and self._gates:
            draws = torch.rand(len(self._gates), generator=clock.generator("stochastic_depth"), dtype=torch.float64)
            for gate, draw in zip(self._gates, draws.tolist(), strict=True):
                gate.alive = draw < gate.chance
        return False

    def state_dict(self) -> dict[str, Any]:
        """The step's draws, since a step is not begun again on resume."""
        return {"alive": [gate.alive for gate in self._gates]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the draws back."""
        for gate, alive in zip(self._gates, state["alive"], strict=True):
            gate.alive = alive


def survival(blocks: int, p_last: float, first_block_always: bool = False) -> list[float]:
    """Probabilities that blocks survive, from the first to the last.

    Args:
        blocks: L, at least 1.
        p_last: That of the last block.
        first_block_always: 1 - (l - 1) / (L - 1) * (1 - p_last) instead of 1 - l / L * (1 - p_last).

    Returns:
        One probability a block, from 0 to 1.
    """
    if first_block_always:
        return [1 - number / max(blocks - 1, 1) * (1 - p_last) for number in range(blocks)]
    return [1 - number / blocks * (1 - p_last) for number in range(1, blocks + 1)]


@dataclass(eq=False)
class Gate:
    """What the hooks of one block share.

    Attributes:
        chance: Its probability to survive.
        mode: "batch" or "sample".
        scaling: "train" or "test".
        alive: Whether it survives the step; None, as outside a Tuner, leaves it as it is.
        training: Whether the block is in training, noted as its forward pass begins.
        paused: BatchNorms that are in evaluation mode for the length of that pass.
    """

    chance: float
    mode: Mode
    scaling: Scaling
    alive: bool | None = None
    training: bool = False
    paused: list[nn.Module] = field(default_factory=list)

    def factor(self, branch: Tensor) -> Tensor | float:
        """What to multiply the branch by: a number, or (B, 1, ...) in "sample" mode.

        Returns:
            A factor whose mean over draws is 1.
        """
        if not self.training:
            return self.chance if self.scaling == "test" else 1.0
        scale = 1 / self.chance if self.scaling == "train" else 1.0
        if self.mode == "sample":
            return branch.new_empty(len(branch), *(1 for _ in branch.shape[1:])).bernoulli_(self.chance) * scale
        return 1.0 if self.alive is None else scale * self.alive


def attach_gate(gate: Gate, block: ResidualBlock) -> None:
    """Hang a gate on a block's branches, and switch off the block's own stochastic depth."""
    for slot in block.slots:
        for name in ("drop_prob", "p"):  # timm's name and torchvision's.
            if hasattr(slot, name):
                setattr(slot, name, 0.0)
    block.module.register_forward_pre_hook(_Enter(gate, block.norms))
    block.module.register_forward_hook(_Leave(gate), always_call=True)
    for end in block.ends:
        end.register_forward_hook(_Branch(gate))


class _Enter:
    """Before a block: note whether it trains; a fallen one has its BatchNorms in evaluation mode for this forward pass."""

    def __init__(self, gate: Gate, norms: tuple[nn.Module, ...]) -> None:
        self.gate, self.norms = gate, norms

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.gate.training = module.training
        if module.training and self.gate.mode == "batch" and self.gate.alive is False:
            self.gate.paused = [norm for norm in self.norms if norm.training]
            for norm in self.gate.paused:
                norm.training = False


class _Leave:
    """After a block, also one that has failed: its BatchNorms train again."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for norm in self.gate.paused:
            norm.training = True
        self.gate.paused = []


class _Branch:
    """The end of a branch."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        factor = self.gate.factor(output)
        return None if isinstance(factor, float) and factor == 1 else output * factor
