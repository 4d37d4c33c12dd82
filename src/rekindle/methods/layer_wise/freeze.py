"""Freeze parts of a network: the first stages transfer as they are, or only a chosen part trains.

The first stages: Yosinski, Clune, Bengio, Lipson: How transferable are features in deep neural networks?, NeurIPS 2014 (arXiv
1411.1792); `rekindle fit --freeze auto` finds the number of stages on a validation split (Shermin et al., arXiv 1903.10150).

Only a part: one block, surgical fine-tuning, Lee, Chen, Tajwar, Kumar, Yao, Liang, Finn: Surgical Fine-Tuning Improves Adaptation to
Distribution Shifts, ICLR 2023 (arXiv 2210.11466), section 2; biases, Ben Zaken, Ravfogel, Goldberg: BitFit, ACL 2022 (arXiv 2106.10199);
scale and shift of normalisation, Frankle, Schwab, Morcos: Training BatchNorm and Only BatchNorm, ICLR 2021 (arXiv 2003.00152).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from rekindle.method import Method, Net, Source, require
from rekindle.methods._depth import blocks_of, flat
from rekindle.methods.layer_wise.freeze_batchnorm import stay_in_eval
from rekindle.models.structure import STEM
from rekindle.spec import Means

THIRDS = ("first", "middle", "last")


@dataclass
class Freeze(Method):
    """Leave the stages up to a named one as they were trained, or train nothing but a part of the network and the head.

    Args:
        until: Name of the last stage to freeze; `rekindle models NAME` lists the stages of a network; "" freezes nothing.
        norm: "eval" lets frozen BatchNorm use the source's statistics, and keeps them; "train" lets it follow the batches.
        only: What trains besides the head, instead of `until`: "biases" (BitFit), "norms" (scale and shift of normalisation layers), "first",
            "middle" or "last" (that third of the blocks, the stem with the first), or names of stages with commas between; "" is all.

    Raises:
        ValueError: For an argument out of range, both `until` and `only`, or a network without that stage or part.
    """

    until: Annotated[str, Means("the name of a stage")] = ""
    norm: Literal["eval", "train"] = "eval"
    only: Annotated[str, Means('"biases", "norms", "first", "middle", "last", or names of stages with commas between')] = ""

    paper: ClassVar[str] = "Yosinski, Clune, Bengio, Lipson, NeurIPS 2014, arXiv 1411.1792; Lee et al., ICLR 2023, arXiv 2210.11466"
    neutral: ClassVar[dict[str, Any] | None] = {"until": ""}
    example: ClassVar[dict[str, Any]] = {"until": "layer1"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not (self.until and self.only), "freeze: until says what is frozen, and only what is not; leave one of the two out.")

    def attach(self, net: Net, source: Source) -> None:
        """Freeze parameters, and BatchNorm whose parameters are all frozen."""
        if not self.until and not self.only:
            return
        frozen = self._up_to(net) if self.until else net.parameters().keys() - self._trained(net) - net.head_parameters().keys()
        for name, parameter in net.parameters().items():
            if name in frozen:
                parameter.requires_grad_(False)
        if self.norm == "eval":
            for module in net.model.modules():
                if getattr(module, "running_mean", None) is not None and _is_frozen(module):
                    stay_in_eval(module)

    def _up_to(self, net: Net) -> Collection[str]:
        """Names of the parameters up to the stage."""
        order = list(net.stages)
        require(self.until in order, f"freeze: there is no stage {self.until!r}; the stages are {', '.join(order)}.")
        return {name for stage in order[: order.index(self.until) + 1] for name in net.stages[stage]}

    def _trained(self, net: Net) -> Collection[str]:
        """Names of the parameters that train besides the head."""
        if self.only in THIRDS:
            found = _third(net, self.only)
        elif self.only == "biases":
            found = {name for name in net.parameters() if name.rpartition(".")[2].endswith("bias")}
        elif self.only == "norms":
            found = {name for name in net.parameters() if "Norm" in type(net.model.get_submodule(name.rpartition(".")[0])).__name__}
        else:
            stages = [stage.strip() for stage in self.only.split(",")]
            unknown = [stage for stage in stages if stage not in net.stages]
            known = ", ".join(net.stages)
            require(
                not unknown, f'freeze: only={self.only!r} is neither "biases", "norms", "first", "middle", "last" nor stages of {known}.'
            )
            found = {name for stage in stages for name in net.stages[stage]}
        require(bool(found), f"freeze: {type(net.model).__name__} has nothing that only={self.only!r} would train.")
        return found


def with_frozen(methods: Sequence[Method], until: str) -> list[Method]:
    """The methods of a run with `--freeze until`, which takes the place of a freeze among them."""
    return [*(method for method in methods if not isinstance(method, Freeze)), Freeze(until)]


def _third(net: Net, which: str) -> Collection[str]:
    """A third of the blocks, rounded: of ResNet's four stages the first, the two in the middle, or the last."""
    blocks = blocks_of(net)
    outer = max(1, round(len(blocks) / 3))
    parts = {
        "first": [net.stages.get(STEM, []), *blocks[:outer]],
        "middle": blocks[outer : len(blocks) - outer],
        "last": blocks[max(outer, len(blocks) - outer) :],
    }
    return set(flat(parts[which]))


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)
