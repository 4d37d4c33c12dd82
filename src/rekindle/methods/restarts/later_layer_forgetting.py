"""Later-layer forgetting: generation after generation, all layers behind a depth are drawn anew.

Zhou, Vani, Larochelle, Courville: Fortuitous Forgetting in Connectionist Networks, ICLR 2022 (arXiv 2202.00155), section 3.2. Layers near
the output learn what is hard and particular, early ones what is easy and general; forgetting the former and learning again leaves what is
useful under many later layers. Their code trains 11 generations of 200 epochs, each with a new optimiser, five epochs of warm-up and a
cosine of its own, and draws by PyTorch's default initialisation from the last stage of ResNet-18 on; BatchNorm it leaves as it is unless
asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from torch import nn

from rekindle.method import Clock, Method, Net, Source, require, with_presets
from rekindle.methods._depth import blocks_of, flat
from rekindle.methods.restarts._draw import check_layers, draw_, forget_source, layers_of, reinitialize_, scale_of_a_head
from rekindle.methods.restarts._periods import Generations


@with_presets
@dataclass
class LaterLayerForgetting(Generations):
    """Draw the last stages and the head anew at the start of each generation but the first, and start the learning rate again.

    What will be drawn counts as new from the start: `l2_sp` does not pull it back to what it is to forget. With ``stages=0`` it is RIFLE
    with a cycle for all parameters.

    Args:
        generations: From 1 (nothing happens) to the number of epochs; 11 in the authors' commands.
        cycle: "all" gives each generation a half cosine of the learning rate, for backbone and head; "none" leaves the run's own.
        optimizer_state: "clear" starts each generation with an optimiser that remembers nothing; "keep" keeps its state.
        stages: How many of the last stages are drawn besides the head, at least 0; what stands behind a stage goes with it.
        norm: "draw" starts normalisation layers in these stages anew as well; "keep" leaves them as they are.
        preset: "paper_code" sets generations, cycle, optimizer_state, stages and norm to what the authors' commands take.

    Raises:
        ValueError: For an argument out of range, a network with fewer stages than asked for, or layers that are frozen or tied.
    """

    stages: Annotated[int, Ge(0)] = 1
    norm: Literal["draw", "keep"] = "draw"
    preset: Literal["paper_code"] | None = None

    paper: ClassVar[str] = "Zhou, Vani, Larochelle, Courville, ICLR 2022, arXiv 2202.00155"
    neutral: ClassVar[dict[str, Any] | None] = {"generations": 1}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper_code": {"generations": 11, "cycle": "all", "optimizer_state": "clear", "stages": 1, "norm": "keep"}
    }

    def incompatible_with(self, other: Method) -> str | None:
        """The source's classifier stands behind the last stage.

        Returns:
            A sentence, or None.
        """
        kept = other.name == "source_classifier" and self.happens and self.stages > 0
        return f"source_classifier keeps a layer that {self.name} would draw anew; give stages=0, or take one of the two." if kept else None

    def surgery(self, net: Net, source: Source) -> None:
        """Count what will be drawn as new."""
        if self.happens:
            forget_source(net, self._behind(net))

    def attach(self, net: Net, source: Source) -> None:
        """Find the layers."""
        super().attach(net, source)
        self._layers = self._drawn(net) if self.happens else []

    def check(self) -> None:
        """Refuse layers that would never be trained."""
        check_layers(self.name, self._net, self._layers)

    def change_(self, number: int, clock: Clock) -> None:
        """Draw the layers, then the head, from one stream; the optimiser forgets everything."""
        stream = clock.generator(self.name)
        if self._layers:
            draw_(self._layers, stream)
        reinitialize_(self._net.head_modules(), stream, scale_of_a_head(self._net.model))

    def _behind(self, net: Net) -> Sequence[str]:
        blocks = blocks_of(net)
        most = len(blocks)
        require(self.stages <= most, f"{self.name}: stages must be at most the {most} of the network, found {self.stages}.")
        return flat(blocks[most - self.stages :])

    def _drawn(self, net: Net) -> list[nn.Module]:
        layers = layers_of(net.model, self._behind(net))
        return layers if self.norm == "draw" else [layer for layer in layers if "Norm" not in type(layer).__name__]
