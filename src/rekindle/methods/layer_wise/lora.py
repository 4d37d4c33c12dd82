"""LoRA and DoRA: pre-trained weights stay as they are, and each layer learns a change of low rank beside them.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022 (arXiv 2106.09685),
section 4.1: W = W0 + alpha/r * B A, with A random and B zero at the start. Liu, Wang, Yin, Molchanov, Wang, Cheng, Chen: DoRA:
Weight-Decomposed Low-Rank Adaptation, ICML 2024 (arXiv 2402.09353), section 4: the same for the direction of each column, W = m (W0 + B A)
/ ||W0 + B A||, its length m learnt by itself. The layers are those of the library peft, in which, as in the authors' code, a length
belongs to an output, a row of W.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Interval
from torch import nn

from rekindle.errors import UserError
from rekindle.method import Method, Net, Source, require
from rekindle.methods.layer_wise.freeze_batchnorm import stay_in_eval
from rekindle.models.merging import BASE, show_base_as_itself
from rekindle.models.structure import ATTENTION
from rekindle.rng import keyed_generator, use_generator
from rekindle.spec import Count, Positive


@dataclass
class LoRA(Method):
    """Freeze the backbone, and let a product of two small matrices beside each layer train, and the head.

    In a trained network that is read back the products are added to the weights: it is as large and as fast as before.

    Args:
        rank: r, the inner size of the products, at least 1; 1 to 64 in the papers.
        alpha: Scale of the products, alpha / r, above 0.
        layers: "all" linear and convolutional layers of the backbone but grouped ones, or those of "attention", as published.
        dora: Learn the length of the weights of each output by itself (DoRA).
        dropout: Chance that a number is dropped before it goes into the product, from 0 to below 1.

    Raises:
        UserError: If peft is not installed.
        ValueError: For an argument out of range, or a network without such layers.
    """

    rank: Count = 8
    alpha: Positive = 16.0
    layers: Literal["all", "attention"] = "all"
    dora: bool = False
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al., ICLR 2022, arXiv 2106.09685; Liu et al., ICML 2024, arXiv 2402.09353"
    neutral: ClassVar[dict[str, Any] | None] = None

    def incompatible_with(self, other: Method) -> str | None:
        """What draws weights anew cannot do so with frozen ones."""
        reason = f"{other.name} draws weights of the backbone anew, which lora freezes; take one of the two."
        return reason if other.redraws_backbone else None

    def surgery(self, net: Net, source: Source) -> None:
        """Put peft's layers in the place of the network's; names of weights in checkpoints stay."""
        found = list(self._targets(net))
        kind = type(net.model).__name__
        require(bool(found), f"lora: {kind} has no layer for layers={self.layers!r}; those are linear and convolutional, and not grouped.")
        _inject(net, self, found)
        _rename(net, found)

    def attach(self, net: Net, source: Source) -> None:
        """Freeze what is not a product, a length or the head; BatchNorm keeps the source's statistics."""
        head = net.head_parameters()
        for name, parameter in net.parameters().items():
            parameter.requires_grad_(name in head or "lora_" in name)
        inside = {id(part) for module in net.head_modules() for part in module.modules()}
        for module in net.model.modules():
            if getattr(module, "running_mean", None) is not None and id(module) not in inside:
                stay_in_eval(module)

    def _targets(self, net: Net) -> Iterator[str]:
        """Names of the layers of the backbone that get a product; what a method has put beside it gets none."""
        inside = {name.rpartition(".")[0] for members in net.stages.values() for name in members}
        for name, module in net.model.named_modules():
            plain = isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1
            attends = self.layers == "all" or any(part in ATTENTION for part in name.split("."))
            if plain and attends and name in inside:
                yield name


def _inject(net: Net, method: LoRA, targets: list[str]) -> None:
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError:
        raise UserError("lora needs the package peft; pip install 'rekindle[peft]'.") from None
    config = peft.LoraConfig(
        r=method.rank, lora_alpha=method.alpha, lora_dropout=method.dropout, target_modules=targets, use_dora=method.dora
    )
    with use_generator(keyed_generator(net.seed, "lora")):
        peft.inject_adapter_in_model(config, net.model)
    for name in targets:
        show_base_as_itself(net.model.get_submodule(name))


def _rename(net: Net, targets: list[str]) -> None:
    """Weights are shared under the names that they have now; products are new, and count to the stage of their layer."""
    moved = {f"{name}.{leaf}": f"{name}.{BASE}{leaf}" for name in targets for leaf in ("weight", "bias")}
    net.source_names = {moved.get(name, name): source for name, source in net.source_names.items()}
    names = list(net.parameters())
    for stage, members in net.stages.items():
        owners = {name.rpartition(".")[0] for name in members if name in moved}
        added = [name for name in names if "lora_" in name and name.partition(".lora_")[0] in owners]
        net.stages[stage] = [moved.get(name, name) for name in members] + added
    net.no_weight_decay += tuple(name for name in names if "lora_magnitude" in name)
