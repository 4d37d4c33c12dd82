"""Layer-wise re-initialisation: block by block from the input up, what stands above is drawn anew.

Alabdulmohsin, Maennel, Keysers: The Impact of Reinitialization on Generalization in Convolutional Neural Networks, 2021 (arXiv
2109.00267), Algorithm 1. For block k = 1..K, N times each: the blocks up to k are brought back to the norm that they started with,
everything above is drawn anew, and the network is trained. They also insert a normalisation behind block k, with fixed mean and deviation
of a batch; it would be part of every saved and exported network, and is left out here. Networks with BatchNorm normalise all the same.

The implementation of Zhou et al. (arXiv 2202.00155) spreads its generations over the blocks by rounding down, its first being the start
itself; it restores the norm of each parameter tensor by itself, and sets those to zero that started there. So it is done here. Its blocks
are single residual blocks and the classifier; ours are stages.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rekindle.method import Clock, Method, Net, Source, require
from rekindle.methods._depth import blocks_of, flat
from rekindle.methods.restarts._draw import check_layers, draw_, forget_source, layers_of, reinitialize_, scale_of_a_head
from rekindle.methods.restarts._periods import Generations
from rekindle.spec import Count


@dataclass
class LayerWiseReinit(Generations):
    """Keep the stem and the first blocks at the norm that they started with, draw all blocks above them and the head; at each restart more is kept.

    All blocks but the first count as new from the start: `l2_sp` does not pull them back to what will be drawn anew.

    Args:
        generations: From 1 (nothing happens) to the number of epochs. Its restarts are spread over the K blocks, the first block alone
            being kept at first; N * K + 1, with N restarts a block, as published.
        cycle: "all" gives each generation a half cosine of the learning rate, for backbone and head; "none" leaves the run's own.
        optimizer_state: "clear" starts each generation with an optimiser that remembers nothing; "keep" keeps its state.

    Raises:
        ValueError: For an argument out of range, a network without stages, or layers that are frozen or tied.
    """

    generations: Count = 4

    paper: ClassVar[str] = "Alabdulmohsin, Maennel, Keysers, 2021, arXiv 2109.00267"
    neutral: ClassVar[dict[str, Any] | None] = {"generations": 1}
    example: ClassVar[dict[str, Any]] = {"generations": 2}

    def incompatible_with(self, other: Method) -> str | None:
        """The source's classifier stands above all blocks.

        Returns:
            A sentence, or None.
        """
        kept = other.name == "source_classifier" and self.happens
        return f"source_classifier keeps a layer that {self.name} would draw anew; take one of the two." if kept else None

    def surgery(self, net: Net, source: Source) -> None:
        """Count what will be drawn as new."""
        if self.happens:
            forget_source(net, flat(blocks_of(net)[1:]))

    def attach(self, net: Net, source: Source) -> None:
        """Find the blocks, and measure the weights."""
        super().attach(net, source)
        self._blocks = blocks_of(net) if self.happens else []
        require(bool(self._blocks) or not self.happens, f"{self.name}: the network has no stages behind its stem.")
        self._norms = {name: float(p.detach().double().norm()) for name, p in net.parameters().items()} if self.happens else {}

    def check(self) -> None:
        """Refuse layers that would never be trained."""
        check_layers(self.name, self._net, layers_of(self._net.model, flat(self._blocks[1:])))

    def kept(self, number: int) -> int:
        """How many blocks the restart of that number keeps, of those that there are.

        Returns:
            A count of at least 1.
        """
        return 1 + (number - 1) * len(self._blocks) // (self.generations - 1)

    def change_(self, number: int, clock: Clock) -> None:
        """Rescale what is kept, draw what stands above, then the head; the optimiser forgets everything."""
        above = flat(self._blocks[self.kept(number) :])
        self._rescale_(set(above) | set(self._net.head_parameters()))
        stream = clock.generator(self.name)
        if above:
            draw_(layers_of(self._net.model, above), stream)
        reinitialize_(self._net.head_modules(), stream, scale_of_a_head(self._net.model))

    @torch.no_grad()
    def _rescale_(self, drawn: set[str]) -> None:
        """Bring each tensor that is kept to the norm that it started with."""
        for name, parameter in self._net.parameters().items():
            norm = float(parameter.detach().double().norm())
            if name not in drawn and parameter.requires_grad and norm > 0:
                parameter.mul_(self._norms[name] / norm)

    def state_dict(self) -> dict[str, Any]:
        """The norms at the start by parameter name."""
        return {"norms": self._norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put them back."""
        self._norms = dict(state["norms"])
