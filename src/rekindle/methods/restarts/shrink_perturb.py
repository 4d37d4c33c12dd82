"""Shrink and perturb: at a restart all weights shrink, and a little noise is added.

Ash and Adams: On Warm-Starting Neural Network Training, NeurIPS 2020 (arXiv 1910.08475), section 4: theta <- lambda * theta + p, with
p ~ N(0, sigma^2). A warm start learns new data with smaller gradients than a fresh one, and generalises worse; shrinking keeps what the
network says and lets gradients balance again. The authors do it when data arrive; here it happens between generations of one run.

Noise in practice is a freshly initialised network times sigma, they say, since layers are initialised differently. Their code (0.4 and 0.1
by default) does so, and trains on in that network: its BatchNorm statistics are fresh, too.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from rekindle.method import Clock, Net, Source, with_presets
from rekindle.methods.restarts._draw import drawable, fresh
from rekindle.methods.restarts._periods import Generations
from rekindle.rng import use_generator
from rekindle.spec import NonNegative, Share


@with_presets
@dataclass
class ShrinkPerturb(Generations):
    """Multiply weights by a factor below 1 and add noise at the start of each generation but the first.

    What is frozen stays. The parameters stay *shared*: `l2_sp` goes on to pull them to the source.

    Args:
        generations: From 1 (nothing happens) to the number of epochs.
        cycle: "all" gives each generation a half cosine of the learning rate, for backbone and head; "none" leaves the run's own.
        optimizer_state: "clear" starts each generation with an optimiser that remembers nothing, as published; "keep" keeps its state.
        shrink: lambda, from 0 to 1; 0.4 in the authors' code.
        noise: sigma, at least 0; 0.1 in the authors' code.
        draw: Noise of a fresh "initialization" times sigma, as in the authors' code, or "normal" with standard deviation sigma, as printed.
        towards: Shrink to "zero", as published, or to the "source": w0 + lambda * (w - w0) for weights that the source has.
        preset: "paper" sets shrink, noise, draw and towards to the printed formula with 0.6 and 0.01, "paper_code" to the code's defaults.

    Raises:
        ValueError: For an argument out of range.
    """

    shrink: Share = 0.4
    noise: NonNegative = 0.1
    draw: Literal["initialization", "normal"] = "initialization"
    towards: Literal["zero", "source"] = "zero"
    preset: Literal["paper", "paper_code"] | None = None

    draws: ClassVar[bool] = False
    paper: ClassVar[str] = "Ash and Adams, NeurIPS 2020, arXiv 1910.08475"
    neutral: ClassVar[dict[str, Any] | None] = {"generations": 1}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"shrink": 0.6, "noise": 0.01, "draw": "normal", "towards": "zero"},
        "paper_code": {"shrink": 0.4, "noise": 0.1, "draw": "initialization", "towards": "zero"},
    }

    @property
    def changes_backbone(self) -> bool:
        """All of it."""
        return self.happens

    def attach(self, net: Net, source: Source) -> None:
        """Copy what weights shrink to, if that is not zero."""
        super().attach(net, source)
        shared = net.shared() if self.towards == "source" and self.happens else {}
        self._anchors = {name: source.tensors[net.source_names[name]].to(p.device) for name, p in shared.items()}

    @torch.no_grad()
    def change_(self, number: int, clock: Clock) -> None:
        """w0 + lambda * (w - w0) + sigma * noise, w0 being zero or the source's; the optimiser forgets everything."""
        stream = clock.generator(self.name)
        trained = {name: p for name, p in self._net.parameters().items() if p.requires_grad}
        noise = self._fresh(stream) if self.draw == "initialization" else _normal(trained, stream)
        for name, parameter in trained.items():
            anchor = self._anchors.get(name)
            start = torch.zeros_like(parameter) if anchor is None else anchor.to(parameter.dtype)
            moved = start + self.shrink * (parameter - start)
            if id(parameter) in noise:
                moved += self.noise * noise[id(parameter)].to(parameter.device)
            parameter.copy_(moved)

    def state_dict(self) -> dict[str, Any]:
        """The anchors by parameter name."""
        return {"anchors": self._anchors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put the stored anchors in the place of the source's."""
        self._anchors = {name: tensor.to(self._anchors[name].device) for name, tensor in state["anchors"].items()}

    def _fresh(self, stream: torch.Generator) -> dict[int, Tensor]:
        """The weights of a freshly initialised network, by parameter; BatchNorm's statistics become its, where a layer trains."""
        found: dict[int, Tensor] = {}
        with use_generator(stream):
            for layer in drawable([self._net.model]):
                drawn = {id(tensor): value for tensor, value in fresh(layer)}
                found |= {id(p): drawn[id(p)] for p in layer.parameters(recurse=False)}
                if any(p.requires_grad for p in layer.parameters(recurse=False)):
                    _take_statistics(layer, drawn)
        return found


def _take_statistics(layer: nn.Module, drawn: dict[int, Tensor]) -> None:
    for buffer in layer.buffers(recurse=False):
        if id(buffer) in drawn:
            buffer.copy_(drawn[id(buffer)])


def _normal(parameters: dict[str, nn.Parameter], stream: torch.Generator) -> dict[int, Tensor]:
    """Standard normal numbers of each parameter's shape, from the CPU."""
    return {id(p): torch.randn(p.shape, generator=stream, dtype=torch.float32).to(p.dtype) for p in parameters.values()}
