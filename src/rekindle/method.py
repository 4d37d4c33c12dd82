"""The contracts: what a fine-tuning method may do, when, and what it is told.

A method overrides only the verbs that its paper changes; every default is the identity. The `Tuner` calls the verbs:

=============================  =======================================================================================
seam                           verb
=============================  =======================================================================================
before training                `surgery`, then `attach`
parameter groups               `lr_scale`, `layer_factor`
data are given                 `keep_data`
once, before the first step    `prepare`
schedule                       `run_epochs`, `lr_factor`
an epoch or a step starts      `restart_`
labels, before the loss        `labels`
loss, before backward          `penalty`, `task_weight`
gradients of the loss there    `perturb_`
gradients final                `gradient`, `value`
before the optimiser's step    `before_step`
after the optimiser's step     `after_step_`
checkpoint                     `state_dict`, `load_state_dict`
=============================  =======================================================================================
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rekindle.rng import keyed_generator
from rekindle.spec import Granularity, WeightDecay, check_fields, snake

GradientPairs = list[tuple[nn.Parameter, Tensor]]
PassOverData = Callable[[], Iterable[tuple[Tensor, Tensor]]]


def noop(*values: Any) -> None:
    """Do nothing (no operation): the default where a callback may be given."""


@dataclass(frozen=True)
class Clock:
    """The moment in a run: everything that a draw may depend on besides what it is for.

    Args:
        epoch: 0-based, below `epochs`.
        epochs: Length of the run.
        step: 0-based optimiser step inside the epoch.
        steps_per_epoch: Optimiser steps (not micro-batches) in an epoch.
        micro: 0-based micro-batch inside the step, under gradient accumulation.
        seed: The run's seed.
        rank: This process among those that train together; never part of a draw for weights.
    """

    epoch: int
    epochs: int
    step: int = 0
    steps_per_epoch: int = 1
    micro: int = 0
    seed: int = 0
    rank: int = 0

    @property
    def global_step(self) -> int:
        """Optimiser steps since the run began."""
        return self.epoch * self.steps_per_epoch + self.step

    def generator(self, *name: str) -> torch.Generator:
        """A generator for a draw of weights at this step: equal on every rank and after resume.

        Returns:
            A generator on the CPU.
        """
        return keyed_generator(self.seed, *name, self.epoch, self.step)


class Source:
    """A frozen copy of the pre-trained network with its classifier, taken before the head is replaced.

    Args:
        model: The pre-trained network; it is copied, so later training cannot move the copy.

    Attributes:
        model: The copy, in evaluation mode, without gradients.
        tensors: Its parameters by name, detached, in float32 (or float64 where they are); copies only where their type is another.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.tensors = {name: as_anchor(p) for name, p in self.model.named_parameters()}


def as_anchor(parameter: Tensor) -> Tensor:
    """Detached, in float32 or better: in bfloat16 a small distance to the anchor is rounded away.

    Returns:
        A detached copy of the parameter's values, float32 or float64.
    """
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))


@dataclass
class Net:
    """Names for the parts of the user's own network; it wraps nothing. Surgery keeps it true to what it changes.

    Attributes:
        model: The network that is fine-tuned.
        head: Names of the modules that make up the new classifier.
        origin: {parameter name here: parameter name in the source}: these are *shared*, all others *new*.
        stages: {stage name: parameter names}, from input to output.
        classifier: Name, here and in the source, of the part that takes the features and gives the logits; "" where the
            source has none, or more than one.
        seed: Key of draws at surgery.
        no_weight_decay: Names of new parameters that no penalty pulls to zero, such as learnt scales.
    """

    model: nn.Module
    head: tuple[str, ...]
    source_names: dict[str, str]
    stages: dict[str, list[str]] = field(default_factory=dict)
    classifier: str = ""
    seed: int = 0
    no_weight_decay: tuple[str, ...] = ()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters by name; tied ones once, under their first name (`named_parameters` counts by identity).

        Returns:
            Parameters by name, in the order of definition.
        """
        return dict(self.model.named_parameters())

    def shared(self) -> dict[str, nn.Parameter]:
        """Parameters that the source has too, by their names here.

        Returns:
            Parameters by name.
        """
        return {name: p for name, p in self.parameters().items() if name in self.source_names}

    def new(self) -> dict[str, nn.Parameter]:
        """Parameters that the source does not have: the head, and any tensor whose shape changed.

        Returns:
            Parameters by name.
        """
        return {name: p for name, p in self.parameters().items() if name not in self.source_names}

    def decayed(self, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Those of the parameters that a penalty may pull to zero.

        Returns:
            Parameters by name, learnt scales left out.
        """
        return {name: p for name, p in parameters.items() if name not in self.no_weight_decay}

    def head_modules(self) -> list[nn.Module]:
        """The modules named by `head`.

        Returns:
            One module, or two.
        """
        return [self.model.get_submodule(name) for name in self.head]

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters inside the head modules, by full name.

        Returns:
            Parameters by name.
        """
        inside = {id(p) for module in self.head_modules() for p in module.parameters()}
        return {name: p for name, p in self.parameters().items() if id(p) in inside}


@dataclass
class Batch:
    """One micro-batch, as the loss seam sees it.

    Attributes:
        inputs: (B, ...) what the network was given.
        labels: (B,) class indices, after `Method.labels`.
        indices: (B,) positions in the training set, or None where the loop does not know them.
        outputs: (B, C) logits.
        clock: The moment.
        activations: {layer: activation}, for `Method.hook_layers`.
        source_outputs: (B, C_s) what the source says of the same inputs, where a method has `uses_source`; never with gradients.
        source_activations: {layer: activation of the source}, for `Method.source_hook_layers`.
        repeated: Whether the same pictures were looked at before in this step, as after `Method.perturb_`: what counts pictures leaves these out.
    """

    inputs: Tensor
    labels: Tensor
    indices: Tensor | None
    outputs: Tensor
    clock: Clock
    activations: dict[str, Tensor] = field(default_factory=dict)
    source_outputs: Tensor | None = None
    source_activations: dict[str, Tensor] = field(default_factory=dict)
    repeated: bool = False


@dataclass(frozen=True)
class DataPasses:
    """The data that methods may look at, and who is told of its progress.

    Attributes:
        target: Each call is one pass: yields (inputs, labels) of the training set in evaluation transforms, equal on all ranks.
        source: The same of the data that the source was trained on, or None where there is none.
        note: Told a sentence, such as what a preparation will cost.
        progress: Told (what, done, total).
        features: (N, D) that the head reads of the training set, in evaluation mode, and (N,) labels, where somebody has them already.
        held_out: As `target`, of pictures that training leaves out, for methods with `Method.held_out`; None where there are none.
    """

    target: PassOverData
    source: PassOverData | None = None
    note: Callable[[str], None] = noop
    progress: Callable[[str, int, int], None] = noop
    features: tuple[Tensor, Tensor] | None = None
    held_out: PassOverData | None = None


class Method:
    """Base of all methods; each default does nothing.

    A subclass is a dataclass, so that ``repr`` parses back to an equal object; it sets `paper` and `neutral`.

    Attributes:
        name: What recipes and logs call the method; by default the class's name in snake case (`L2SP` is "l2_sp").
        paper: Citation, one line.
        neutral: Settings at which the method does nothing; the contract suite trains with them. None: there are none.
        example: Settings at which it does something, where its defaults do not; the contract suite trains with them too.
        uses_source: Whether `penalty` needs the source's outputs or activations on each batch.
        uses_source_data: Whether `prepare` looks at `DataPasses.source`.
        held_out: Share of the training pictures that `rekindle.fit` leaves out of training and gives as `DataPasses.held_out`; a loop of
            one's own sees to that itself.
        hook_layers: What `penalty` needs of the network: names of modules for their outputs, "NAME:input" for a module's first input.
        source_hook_layers: The same of the source.
        needs_hard_labels: Whether it takes each label for one class; pictures that are mixed, and have shares of two, are refused then.
        splits_batches: Whether the gradients of a batch's micro-batches add up to the batch's; False where it acts on statistics of a batch.
        scales_layers: Whether `layer_factor` changes learning rates in training, so that each layer needs a parameter group of its own.
        is_weight_decay: Whether it is plain weight decay, a pull of all weights to zero that knows nothing of the source: a direction may
            leave it outside.
        presets: {value of the option `preset`: the options that it sets}, for a class under `with_presets`.
        beside_preset: {option: values that may be given beside any preset and count}: named variants of the paper.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    neutral: ClassVar[dict[str, Any] | None] = {}
    example: ClassVar[dict[str, Any]] = {}
    needs_hard_labels: ClassVar[bool] = False
    splits_batches: ClassVar[bool] = True
    scales_layers: ClassVar[bool] = False
    is_weight_decay: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    beside_preset: ClassVar[dict[str, tuple[Any, ...]]] = {}
    uses_source: bool = False
    uses_source_data: bool = False
    held_out: float = 0.0
    hook_layers: Sequence[str] = ()
    source_hook_layers: Sequence[str] = ()

    def __init_subclass__(cls) -> None:
        _name(cls)

    def __post_init__(self) -> None:
        """Refuse options that their annotations or a preset do not allow. A subclass with checks of its own calls this first."""
        _check_options(self)

    def step_cost(self, steps_per_epoch: int) -> float:
        """About how many plain steps' time a step with it takes, which `--minutes` counts on: the source's forward pass is a quarter of one,
        a second look at the batch a whole one."""
        return 1 + 0.25 * self.uses_source + (type(self).perturb_ is not Method.perturb_)

    @property
    def needs_data(self) -> bool:
        """Whether `Tuner.prepare` must be called before the first epoch."""
        return type(self).prepare is not Method.prepare or self.keeps_data

    @property
    def keeps_data(self) -> bool:
        """Whether it looks at data in training too, so that `Tuner.prepare` must be called again after a resume."""
        return type(self).keep_data is not Method.keep_data

    @property
    def acts_on_outputs(self) -> bool:
        """Whether it must see labels and outputs, so that a loop has to compute its loss by the tuner."""
        return any(getattr(type(self), verb) is not getattr(Method, verb) for verb in ("labels", "penalty", "task_weight", "perturb_"))

    def surgery(self, net: Net, source: Source) -> None:
        """Change modules in place. Keys of `state_dict` stay; new keys only for new layers."""

    def attach(self, net: Net, source: Source) -> None:
        """Look at the finished network and copy what must not move, such as anchors."""

    def incompatible_with(self, other: "Method") -> str | None:
        """Why the method cannot work beside `other`, as a sentence, or None. Asked of each pair, both ways.

        Returns:
            A sentence, or None.
        """
        return None

    def incompatible_with_direction(self) -> str | None:
        """Why the method cannot work under a direction other than the plain sum, as a sentence, or None.

        A direction combines gradients; what `after_step_` does to weights it never sees.

        Returns:
            A sentence, or None.
        """
        if type(self).after_step_ is Method.after_step_:
            return None
        return "it changes weights after the optimiser's step, past the direction; leave the direction out."

    def lr_scale(self, parameter: str) -> float:
        """A constant factor on the learning rate of the parameter of that name; those of several methods multiply.

        Returns:
            A factor of at least 0; 1 changes nothing.
        """
        return 1.0

    def layer_factor(self, layer: str, clock: Clock) -> float:
        """A factor on the learning rate of a layer of the backbone at a moment, for a method with `scales_layers`.

        Asked at the start of each step, after `restart_`.

        Args:
            layer: Name of the module that holds the parameters.
            clock: The moment.

        Returns:
            A factor of at least 0; 1 changes nothing.
        """
        return 1.0

    def keep_data(self, data: DataPasses) -> None:
        """Hold on to passes over data that are made in training; called before `prepare`, and also after a resume."""

    def prepare(self, data: DataPasses) -> None:
        """Estimate from data, once, in evaluation mode; the result goes to `state_dict` and is not estimated again on resume."""

    def run_epochs(self, epochs: int) -> int:
        """How many of the epochs asked for the method trains; fewer where a paper trims the run.

        Returns:
            A count from 1 to `epochs`.
        """
        return epochs

    def warnings(self, clock: Clock) -> list[str]:
        """Sentences for whoever starts a run that is known not to suit the method; `clock` is its first moment.

        Returns:
            Sentences; none where the run suits the method.
        """
        return []

    def summary(self, epochs: int) -> str | None:
        """A sentence for whoever reads a finished run of so many epochs, where the method did other than its name says.

        Returns:
            A sentence, or None.
        """
        return None

    def lr_factor(self, group: str, clock: Clock) -> float | None:
        """The factor on the base learning rate of a group ("backbone" or "head"); None where the method does not set that group's rate.

        Returns:
            A factor of at least 0, or None.
        """
        return None

    @property
    def draws_head(self) -> bool:
        """Whether it may draw the head anew in a run, so that the head needs a rate at which it can be fitted from nothing."""
        return False

    @property
    def redraws_backbone(self) -> bool:
        """Whether it may draw weights of the backbone anew, which must then be free to train."""
        return False

    @property
    def changes_backbone(self) -> bool:
        """Whether it may change weights of the whole backbone at once in a run, so that BatchNorm has to follow the batches."""
        return False

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Re-initialise in place at the start of a step; True if it did. Called once a step, first at step 0.

        Returns:
            True if something was drawn anew.
        """
        return False

    def labels(self, labels: Tensor, indices: Tensor | None, clock: Clock) -> Tensor:
        """The labels to train on; the caller keeps the clean ones for its metrics.

        Returns:
            (B,) int64, or (B, C) float32 shares.
        """
        return labels

    def penalty(self, batch: Batch) -> Tensor | None:
        """A scalar of activations to add to the loss, or None.

        Returns:
            A scalar with its graph, or None.
        """
        return None

    def task_weight(self) -> float:
        """The factor on the task's own loss, for papers that weigh it.

        Returns:
            A factor; 1 changes nothing.
        """
        return 1.0

    def perturb_(self, clock: Clock, parameters: list[nn.Parameter]) -> bool:
        """Move weights, by their `.grad`, to where the loss's gradient is to be taken in place of here; True if it did.

        The tuner computes the loss of the same micro-batches once more there, and puts the weights back.

        Args:
            clock: The moment.
            parameters: Those with a gradient, over all micro-batches and ranks, without penalties on weights.

        Returns:
            True if weights were moved.
        """
        return False

    def gradient(self, clock: Clock) -> GradientPairs:
        """Closed-form gradient of a weight penalty: (parameter, tensor of its shape) pairs.

        Returns:
            Pairs; none where the method has no such penalty.
        """
        return []

    def value(self, clock: Clock) -> Tensor | None:
        """The weight penalty whose gradient `gradient` is; autograd through it must agree. Logged each epoch.

        Returns:
            A scalar with its graph, or None.
        """
        return None

    def before_step(self, clock: Clock) -> None:
        """Look at weights and their gradients, `.grad` with all penalties in it, before they are clipped and the optimiser steps.

        What `after_step_` needs of them must be noted here: an optimiser may write over gradients.
        """

    def after_step_(self, clock: Clock, lr: Callable[[nn.Parameter], float]) -> None:
        """Change weights after the optimiser's step (proximal operators); `lr` tells a parameter's learning rate, 0 if frozen."""

    def state_dict(self) -> dict[str, Any]:
        """All that cannot be recomputed, anchors above all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class Direction:
    """Maps inner products of the loss's gradient g and the regulariser's h to weights (a, b): the step uses a*g + b*h.

    Subclasses may depend on nothing but the three products, accumulated in float64, so that the rule is a scalar function; one that
    remembers earlier products overrides `weights_of`, and keeps what it knows in `state_dict`. A subclass is a frozen dataclass; new parameters, which have no pre-trained values, always get the plain sum.

    Attributes:
        name: What recipes and logs call the direction; by default the class's name in snake case.
        paper: Citation, one line.
        granularity: What counts as one vector: "global", all shared parameters; "layer", those of one module; "tensor", each.
        weight_decay: Where the gradient of plain weight decay (`Method.is_weight_decay`) stands: "outside", added to the step as it is, or
            "inside" h.
        presets: As in `Method`.
        beside_preset: As in `Method`.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    beside_preset: ClassVar[dict[str, tuple[Any, ...]]] = {}
    granularity: Granularity = "global"
    weight_decay: WeightDecay = "outside"

    def __init_subclass__(cls) -> None:
        _name(cls)

    def __post_init__(self) -> None:
        """Refuse options that their annotations or a preset do not allow."""
        _check_options(self)

    def weights(self, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """Weights for g and h from <g,g>, <g,h> and <h,h>.

        Returns:
            (a, b) of the combination a * g + b * h.
        """
        raise TypeError(f"{type(self).__name__} must define weights(gg, gh, hh).")

    def weights_of(self, block: str, gg: float, gh: float, hh: float) -> tuple[float, float]:
        """The same at a step of training; `block` names what counts as one vector, by the first of its parameters.

        Returns:
            (a, b) of the combination a * g + b * h.
        """
        return self.weights(gg, gh, hh)

    def state_dict(self) -> dict[str, Any]:
        """What a rule remembers of earlier steps."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""

    def strength(self, clock: Clock) -> float:
        """A factor on h, for rules that fade.

        Returns:
            A factor of at least 0; 1 changes nothing.
        """
        return 1.0


def _name(kind: type["Method"] | type["Direction"]) -> None:
    """Name a class after itself, unless its own body says how."""
    if "name" not in vars(kind):
        kind.name = snake(kind.__name__)


Kind = TypeVar("Kind", bound="Method | Direction")


def with_presets(kind: type[Kind]) -> type[Kind]:
    """Let the option `preset` of a dataclass fill in those of the preset's options that are not given: put it above ``@dataclass``.

    What is given beside a preset is never overridden: `Method.__post_init__` refuses it where it contradicts.

    Returns:
        The class that was given.
    """
    plain = kind.__init__
    names = [field.name for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]

    @functools.wraps(plain)
    def init(self: Kind, *values: Any, **options: Any) -> None:
        given = {**dict(zip(names, values, strict=False)), **options}
        filled = {name: value for name, value in _preset(self, given.get("preset")).items() if name not in given}
        plain(self, *values, **options, **filled)

    kind.__init__ = init  # type: ignore[assignment, method-assign]
    return kind


def _preset(owner: "Method | Direction", chosen: Any) -> dict[str, Any]:
    """The options that the preset chosen sets; none for one that there is not, which is refused as a value."""
    return owner.presets.get(chosen, {}) if isinstance(chosen, str) else {}


def _check_options(owner: "Method | Direction") -> None:
    """Refuse options that their annotations do not allow, and those that contradict the preset given with them."""
    if not dataclasses.is_dataclass(owner):
        return
    check_fields(f"{owner.name}: ", owner)
    chosen = getattr(owner, "preset", None)
    for option, value in _preset(owner, chosen).items():
        found = getattr(owner, option)
        require(
            found == value or found in owner.beside_preset.get(option, ()),
            f"{owner.name}: {option}={found!r} contradicts preset={chosen!r}, which sets {option}={value!r}; leave one of the two out.",
        )


def require(condition: bool, message: str) -> None:
    """Raise `ValueError` with `message` unless the condition holds: the check of every constructor."""
    if not condition:
        raise ValueError(message)
