"""Freeze the first stages of a network: they transfer as they are.

Yosinski, Clune, Bengio, Lipson: How transferable are features in deep neural networks?, NeurIPS 2014 (arXiv 1411.1792).
`rekindle fit --freeze auto` finds the number of stages on a validation split (Shermin et al., arXiv 1903.10150).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from rekindle.method import Method, Net, Source, require
from rekindle.methods.layer_wise.freeze_batchnorm import stay_in_eval
from rekindle.spec import Means


@dataclass
class Freeze(Method):
    """Leave the stages up to a named one as they were trained.

    Args:
        until: Name of the last stage to freeze; `rekindle models NAME` lists the stages of a network; "" freezes nothing.
        norm: "eval" lets frozen BatchNorm use the source's statistics, and keeps them; "train" lets it follow the batches.

    Raises:
        ValueError: For an argument out of range, or a network without that stage.
    """

    until: Annotated[str, Means("the name of a stage")] = ""
    norm: Literal["eval", "train"] = "eval"

    paper: ClassVar[str] = "Yosinski, Clune, Bengio, Lipson, NeurIPS 2014, arXiv 1411.1792"
    neutral: ClassVar[dict[str, Any] | None] = {"until": ""}
    example: ClassVar[dict[str, Any]] = {"until": "layer1"}

    def attach(self, net: Net, source: Source) -> None:
        """Freeze parameters, and BatchNorm whose parameters are all frozen."""
        if not self.until:
            return
        order = list(net.stages)
        require(self.until in order, f"freeze: there is no stage {self.until!r}; the stages are {', '.join(order)}.")
        frozen = {name for stage in order[: order.index(self.until) + 1] for name in net.stages[stage]}
        for name, parameter in net.parameters().items():
            if name in frozen:
                parameter.requires_grad_(False)
        if self.norm == "eval":
            for module in net.model.modules():
                if getattr(module, "running_mean", None) is not None and _is_frozen(module):
                    stay_in_eval(module)


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)
