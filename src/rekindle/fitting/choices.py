"""What a run chooses where "auto" stands: rates, length, start of the head, statistics of BatchNorm. Checkpoints and results hold it."""

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rekindle.analysis.linear_probe import LinearProbe
from rekindle.hooks import INPUT, FeatureHooks
from rekindle.method import Method
from rekindle.methods.layer_wise.freeze_batchnorm import FreezeBatchNorm
from rekindle.models.structure import groups_convolutions, normalises
from rekindle.spec import RunSpec
from rekindle.training.defaults import automatic_epochs, automatic_lr, released_epochs
from rekindle.tuner.head_rate import TIED, head_rate, read_head_lr

if TYPE_CHECKING:
    from rekindle.fitting.look import Look
    from rekindle.tuner import Tuner

WARM_MULTIPLE = 4.0
"""A head that starts at the linear probe is fitted, and has to follow the backbone alone. In a network without normalisation layers its own
rate is thirty times the backbone's and makes runs unsteady, so that it gets at most this many times the backbone's (docs/results/defaults)."""

ADAPTIVE_MULTIPLE = "x10"  # The head's rate under optimisers that scale gradients themselves.
CLOSE = 1e-2  # Relative difference of features that counts as none: those of the look are of another batch.


@dataclass(frozen=True)
class Choices:
    """What a run was told or chose.

    Attributes:
        lr: Base learning rate of the backbone.
        head_lr: Of the head.
        epochs: Asked of the methods, which may trim them.
        head_init: "random", "zero" or "linear_probe".
        batchnorm: "frozen" or "batch".
        probe: The linear probe on frozen features; None where there is none.
        baseline: What result.json says of it.
    """

    lr: float
    head_lr: float
    epochs: int
    head_init: str
    batchnorm: str
    probe: LinearProbe | None = None
    baseline: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return asdict(self)

    def methods(self, methods: list[Method]) -> list[Method]:
        """The run's methods, and what the choice of BatchNorm's statistics adds to them."""
        return [*methods, FreezeBatchNorm()] if self.batchnorm == "frozen" else methods


def from_checkpoint(state: dict[str, Any], spec: RunSpec, images: int) -> Choices:
    """The choices of the run that a checkpoint belongs to; those of rekindle 0.1.0 stand in no checkpoint.

    Raises:
        KeyError, TypeError, ValueError: If they are no choices that a run can have made.
    """
    if "choices" not in state:
        rate = float(state["lr"])
        return Choices(rate, rate, epochs_of(spec, images), "random", "batch")
    stored = state["choices"]
    choices = Choices(**{**stored, "probe": stored["probe"] and LinearProbe(**stored["probe"])})
    if not (min(choices.lr, choices.head_lr) > 0 and isinstance(choices.epochs, int) and isinstance(choices.baseline, dict)):
        raise ValueError("its learning rates or epochs are none")
    if choices.head_init not in ("random", "zero", "linear_probe") or choices.batchnorm not in ("frozen", "batch"):
        raise ValueError("it names an unknown start of the head or kind of BatchNorm")
    if choices.probe is not None and not (isinstance(choices.probe.weight, Tensor) and isinstance(choices.probe.bias, Tensor)):
        raise ValueError("its linear probe has no weights")
    return choices


def stated_batchnorm(spec: RunSpec, methods: list[Method]) -> str:
    """What BatchNorm normalises by where options or methods say so: "frozen" or "batch"; else "auto".

    Returns:
        One of the three words.
    """
    if any(method.name in ("freeze_batchnorm", "stoch_norm") for method in methods):
        return "batch"  # The recipe says it already.
    if spec.batchnorm == "auto" and any(method.changes_backbone for method in methods):
        return "batch"
    return spec.batchnorm


def choose(spec: RunSpec, images: int, methods: list[Method], look: "Look | None", batchnorm: str) -> Choices:
    """Fill in what the spec leaves open but the head's rate, for which see `with_head_rate`.

    Args:
        spec: The run, its optimiser named.
        images: Training images.
        methods: The spec's.
        look: What was seen of the features; None where the weights are random.
        batchnorm: "frozen" or "batch"; what `rekindle.fitting.look.batchnorm_for` found where `stated_batchnorm` leaves it open.
    """
    lr = spec.lr or automatic_lr(spec.optimizer, pretrained=look is not None)
    head_init = spec.head_init if spec.head_init != "auto" else "random" if look is None else "linear_probe"
    probe = None if look is None else look.probe
    return Choices(lr, lr, epochs_of(spec, images), head_init, batchnorm, probe)


def with_head_rate(choices: Choices, spec: RunSpec, methods: list[Method], look: "Look | None", module: nn.Module) -> Choices:
    """The choices with the head's rate, which rests on the backbone's, on the head's start, and on whether a method draws it anew.

    Args:
        choices: With the backbone's rate and the head's start.
        spec: The run, its optimiser named.
        methods: The spec's.
        look: What was seen of the features; None where the weights are random.
        module: The network.
    """
    head_lr = spec.head_lr or (TIED if look is None else _own_rate(spec, look))
    rate = read_head_lr(head_lr, choices.lr)
    fitted = choices.head_init == "linear_probe" and not any(method.draws_head for method in methods)
    if fitted and look is not None and not spec.head_lr and spec.optimizer == "SGD" and not normalises(module):
        rate = min(rate, WARM_MULTIPLE * choices.lr)
    return replace(choices, head_lr=rate)


def epochs_of(spec: RunSpec, images: int) -> int:
    """Epochs asked for, or chosen by the number of training images.

    Returns:
        A count of at least 1.
    """
    if spec.epochs:
        return spec.epochs
    return released_epochs(images) if spec.defaults == "0.1" else automatic_epochs(images, spec.batch_size)


def automatic_augment(spec: RunSpec, module: nn.Module) -> str | None:
    """The augmentation beside crop and mirror where it was left open.

    TrivialAugment gains on few pictures where a network is pre-trained (docs/results/defaults), but for EfficientNet-Lite0, which loses by
    it; so networks of grouped convolutions go without. Random weights were not tried.

    Returns:
        A recipe of augmentations, or None.
    """
    return None if spec.weights == "none" or groups_convolutions(module) else "trivial_augment"


def _own_rate(spec: RunSpec, look: "Look") -> float | str:
    """By kappa for SGD; adaptive optimisers do not see how long the features are."""
    return head_rate(look.mean_square) if spec.optimizer == "SGD" else ADAPTIVE_MULTIPLE


def start_head(choices: Choices, tuner: "Tuner", look: "Look | None") -> Choices:
    """Give the head its start, in place.

    Args:
        choices: Made before the network had its head.
        tuner: Around the network with its head, on its device.
        look: What was seen of the features, where the head reads them; else None.

    Returns:
        The choices; a head that reads other features than the probe's, or is not one linear layer, starts at random.
    """
    if choices.head_init == "zero":
        with torch.no_grad():
            for parameter in tuner.net.head_parameters().values():
                parameter.zero_()
    if choices.head_init != "linear_probe":
        return choices
    if look is None:
        return replace(choices, head_init="random")
    write_probe(tuner.net.head_modules()[0], look.probe)
    return choices


def write_probe(layer: nn.Module, probe: LinearProbe) -> None:
    """Put a probe's weights into a linear layer."""
    with torch.no_grad():
        layer.weight.copy_(probe.weight)  # type: ignore[operator]
        layer.bias.copy_(probe.bias)  # type: ignore[operator]


def own_start(tuner: "Tuner") -> dict[str, Tensor]:
    """What a network that is about to train holds other than its source, such as what methods put beside its layers.

    Returns:
        {name in the network's state dict: a copy}; the head is among it.
    """
    source, names = tuner.source.model.state_dict(), tuner.net.source_names
    found = {}
    for name, value in tuner.net.model.state_dict().items():
        origin = source.get(names.get(name, name))
        if origin is None or origin.shape != value.shape or not torch.equal(origin, value):
            found[name] = value.clone()
    return found


@torch.no_grad()
def back_to_probe(tuner: "Tuner", probe: LinearProbe, own: dict[str, Tensor]) -> None:
    """Undo the training of a run that began with a linear probe, in place.

    Args:
        tuner: Around the trained network; what was merged into its layers is undone with them.
        probe: For its head.
        own: What `own_start` gave of it.
    """
    before, names = tuner.source.model.state_dict(), tuner.net.source_names
    for name, tensor in tuner.net.model.state_dict().items():
        tensor.copy_(own[name] if name in own else before[names.get(name, name)])
    write_probe(tuner.net.head_modules()[0], probe)


@torch.no_grad()
def reads(tuner: "Tuner", features: Tensor, first: Tensor) -> bool:
    """Whether the head is one linear layer on the features that were looked at, those of `first` before the others.

    Returns:
        True where the probe may be written into the head.
    """
    modules = tuner.net.head_modules()
    if len(modules) != 1 or type(modules[0]) is not nn.Linear or modules[0].bias is None:
        return False
    model, name = tuner.net.model, tuner.net.head[0] + INPUT
    modes = {module: module.training for module in model.modules()}
    hooks = FeatureHooks(model.eval(), [name])
    model(first)
    seen = hooks.take()[name]
    hooks.remove()
    for module, mode in modes.items():
        module.training = mode
    wanted = features[: len(first)].to(seen.device)
    return seen.shape == wanted.shape and bool((seen.double() - wanted).norm() <= CLOSE * wanted.norm())
