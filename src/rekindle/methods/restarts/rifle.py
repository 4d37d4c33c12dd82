"""RIFLE: re-initialise the fully-connected layer in the middle of fine-tuning.

Li, Xiong, An, Xu, Dou: RIFLE: Backpropagation in Depth for Deep Transfer Learning through Re-Initializing the
Fully-connected LayEr, ICML 2020 (arXiv 2007.03349), section 3 and Algorithm 1.

K periods have K - 1 re-initialisations, one before each period but the first. eta is the base learning rate, u the
length of a period, E that of the run:

- backbone: eta/2 * (1 + cos(pi * e / E));
- head:     eta/2 * (1 + cos(pi * (e mod u) / u)), its cycle starting anew with each draw.

The last period takes the remainder of E / K. The authors' code instead trims the run to K * (E // K) epochs, keeps the
head's momentum and re-initialises once more after the last epoch, which leaves a random head in the returned model; their
Algorithm 1 counts steps t = 1..T, draws at t = P, 2P, ... below T, runs a full cosine and cycles every parameter. `preset`
gives the first two of these readings; the draw after the last epoch is never made.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor
from torch.optim import Optimizer

from rekindle.errors import number_of
from rekindle.method import Batch, Clock, DataPasses, Method, Net, Source, require, with_presets
from rekindle.methods._features import collect_features
from rekindle.methods.restarts._draw import check_head, forget_, reinitialize_, scale_of_a_head
from rekindle.methods.restarts._fitted import FITTED, TIMES, TrainingAccuracy, steps_of_a_fresh_head
from rekindle.methods.restarts._periods import ENOUGH_STEPS, Shape, cycle_factor, period_starts, rectified_sentence
from rekindle.methods.restarts.cosine import half_cosine
from rekindle.models.classifier import is_rectified
from rekindle.spec import Count, Means, Positive

PRESETS: dict[str, dict[str, Any]] = {
    "paper_code": {"unit": "epoch", "shape": "half", "cycle": "head", "optimizer_state": "keep", "trim": True, "scale": 1.0},
    "algorithm1": {"unit": "step", "shape": "full", "cycle": "all", "optimizer_state": "keep", "trim": False, "scale": 1.0},
}


@with_presets
@dataclass
class Rifle(Method):
    """Draw a fresh head at the start of each period but the first, and restart its learning rate with it.

    RIFLE-A, the paper's ablation without the cyclic rate, is ``rifle(cycle="none")`` or ``rifle_a``; RIFLE-B, without the
    re-initialisation, is ``rifle(reinitialize=False)`` or ``rifle_b``.

    Args:
        periods: K, from 1 (nothing happens) to the number of epochs.
        unit: "epoch" divides the epochs, "step" the optimiser steps of the whole run.
        shape: "half" or "full" cosine in a cycle.
        cycle: Whose rate is cyclic: "head", "all" or "none".
        reinitialize: Draw a fresh head; False leaves the cycle alone.
        optimizer_state: "clear" or "keep" the optimiser's state of the head at a draw. Kept Adam state overshoots.
        min_tail_epochs: Skip a draw that would leave fewer epochs than this, at least 1.
        trim: Shorten the run to K * (E // K) epochs, as the authors' code.
        preset: "paper_code" or "algorithm1": sets unit, shape, cycle, optimizer_state, trim and scale; of these only cycle="none", RIFLE-A,
            may be given otherwise. "algorithm1" counts steps from 1.
        period: Length P of a period in `unit`s, 1 to the length of the run; it overrides `periods` unless it is 0.
        when: "schedule" draws at the start of each period. "fitted" draws at most `periods` - 1 times, at the start of an epoch, once the
            network tells 98 % of its training pictures apart, and only if five times the steps are left that a fresh head needs on frozen
            features; otherwise the run is plain fine-tuning, and says so.
        scale: Factor above 0 on the weights of a fresh draw; 1 as published. None takes 1 where the network has normalisation layers,
            and 0.1 where it has none (SqueezeNet, VGG): there activations grow as it learns, a full draw starts at up to three times
            the loss of guessing, and the gradients of that wreck the backbone.

    Raises:
        ValueError: For an argument out of range, or a head that has no parameters, is frozen, is tied to the
            backbone, or holds a parameter that no `reset_parameters` covers.
    """

    periods: Count = 2
    unit: Literal["epoch", "step"] = "epoch"
    shape: Shape = "half"
    cycle: Literal["head", "all", "none"] = "head"
    reinitialize: bool = True
    optimizer_state: Literal["clear", "keep"] = "clear"
    min_tail_epochs: Count = 1
    trim: bool = False
    preset: Literal["paper_code", "algorithm1"] | None = None
    period: Annotated[int, Ge(0), Means("a whole number of at least 1, or 0 to leave it to periods")] = 0
    scale: Positive | None = None
    when: Literal["schedule", "fitted"] = "schedule"

    paper: ClassVar[str] = "Li, Xiong, An, Xu, Dou, ICML 2020, arXiv 2007.03349"
    neutral: ClassVar[dict[str, Any]] = {"periods": 1}
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    beside_preset: ClassVar[dict[str, tuple[Any, ...]]] = {"cycle": ("none",)}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not (self.trim and self.unit == "step"), "rifle: trim counts epochs; leave it out with unit='step'.")
        fixed = self.unit == "step" or self.period or self.preset or self.trim or self.shape == "full" or not self.reinitialize
        require(
            not (fixed and self.when == "fitted"),
            "rifle: when='fitted' chooses its own epochs; leave out unit, shape, period, trim, preset and reinitialize.",
        )
        self._seen = TrainingAccuracy()
        self._drawn: list[int] = []
        self._reached, self._short = 0.0, False
        self._features: tuple[Tensor, Tensor] | None = None

    def attach(self, net: Net, source: Source) -> None:
        """Check that the head can be drawn anew."""
        self._net, self._modules = net, net.head_modules()
        self._parameters = list(net.head_parameters().values())
        self._rectified = any(is_rectified(net.model, name) for name in net.head)
        self._scale = scale_of_a_head(net.model) if self.scale is None else self.scale
        if self.draws_head:
            check_head(self.name, net)

    @property
    def draws_head(self) -> bool:
        """Unless one period is the whole run, or the cycle is left alone."""
        return self.reinitialize and (self.periods > 1 or bool(self.period))

    def restarts(self, clock: Clock) -> list[int]:
        """Epochs, or global steps, before which the head is drawn anew; with `when="fitted"` those that are known by now.

        Returns:
            Numbers above 0, ascending.
        """
        if not self.reinitialize or self.when == "fitted":
            return list(self._drawn)
        tail = self.min_tail_epochs * (clock.steps_per_epoch if self.unit == "step" else 1)
        length = self._length(clock)
        draws = [start - self._first for start in self._starts(clock)[1:]]
        return [draw for draw in draws if length - draw >= tail]

    @property
    def needs_data(self) -> bool:
        """Only where it has to know how long a fresh head takes."""
        return self.when == "fitted"

    @property
    def acts_on_outputs(self) -> bool:
        """Only where it has to see whether they are right."""
        return self.when == "fitted"

    def prepare(self, data: DataPasses) -> None:
        """Look at the features that the head reads, once."""
        if self.when == "fitted":
            features, labels = collect_features(self._net, data)
            self._features = features.float(), labels

    def penalty(self, batch: Batch) -> None:
        """No penalty: it is where the network's answers are seen."""
        if self.when == "fitted" and not batch.repeated:
            self._seen.add(batch)

    def summary(self, epochs: int) -> str | None:
        """Say so where there never was a moment to restart."""
        if self.when == "schedule" or self._drawn:
            return None
        why = "a fresh head would have had too few steps left" if self._short else f"the best epoch before told {self._reached:.0%} apart"
        return (
            f"rifle never drew the head anew, so this was plain fine-tuning: it waits until {FITTED:.0%} of the training pictures are told "
            f"apart, and {why}; give more --epochs than {epochs}."
        )

    def restart_(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Draw a fresh head in place, with one stream for every rank; the backbone and its state are not touched."""
        due = self._pays(clock, optimizer) if self.when == "fitted" else self._position(clock) in self.restarts(clock)
        if not due or (self.unit == "epoch" and clock.step > 0):
            return False
        if self.when == "fitted":
            self._drawn.append(clock.epoch)
        reinitialize_(self._modules, clock.generator("rifle"), self._scale)
        if self.optimizer_state == "clear":
            forget_(optimizer, self._parameters)
        return True

    def lr_factor(self, group: str, clock: Clock) -> float | None:
        """The cycle for the head (or everything); what it does not claim gets the run's own schedule."""
        if self.cycle == "all" or (self.cycle == "head" and group == "head"):
            if self.when == "fitted":
                return self._since_draw(clock)
            position = self._position(clock) + self._first
            return cycle_factor(position, self._length(clock), self._starts(clock), self.period, self.shape)
        return None

    def warnings(self, clock: Clock) -> list[str]:
        """Say so where the last fresh head has too few steps to be trained in, or may never be."""
        starts, found = self.restarts(clock), []
        if not starts or self.when == "fitted":
            return []
        left = (self._length(clock) - starts[-1]) * (clock.steps_per_epoch if self.unit == "epoch" else 1)
        if left < ENOUGH_STEPS:
            found.append(
                f"rifle: the head has {number_of(left, 'step')} after its last fresh draw; below about {ENOUGH_STEPS} RIFLE has lost accuracy in our "
                "studies where the head had no learning rate of its own (rekindle methods rifle); give more --epochs, or leave rifle out."
            )
        if self._rectified:
            found.append(rectified_sentence(self.name))
        return found

    def run_epochs(self, epochs: int) -> int:
        """K * (E // K) with `trim`, as the authors' code; E without."""
        return self.periods * (epochs // self.periods) if self.trim and not self.period else epochs

    def state_dict(self) -> dict[str, Any]:
        """What `when="fitted"` has seen and done."""
        if self.when == "schedule":
            return {}
        assert self._features is not None
        kept = {
            "hits": int(self._seen.hits),
            "count": self._seen.count,
            "drawn": self._drawn,
            "reached": self._reached,
            "short": self._short,
        }
        return {**kept, "features": self._features[0], "labels": self._features[1]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if self.when == "fitted" and state:
            self._seen.hits, self._seen.count = state["hits"], state["count"]
            self._drawn, self._reached, self._short = list(state["drawn"]), state["reached"], state["short"]
            self._features = state["features"], state["labels"]

    def _pays(self, clock: Clock, optimizer: Optimizer) -> bool:
        """Whether the epoch before fitted its pictures, and a fresh head has the time that it needs."""
        if clock.step > 0 or clock.epoch == 0 or len(self._drawn) >= self.periods - 1:
            return False
        accuracy = self._seen.take()
        self._reached = max(self._reached, accuracy)
        if accuracy < FITTED:
            return False
        assert self._features is not None
        left = (clock.epochs - clock.epoch) * clock.steps_per_epoch
        group = next(group for group in optimizer.param_groups if group["name"] == "head")
        needed = steps_of_a_fresh_head(*self._features, group["initial_lr"], group.get("momentum", 0.9), left // TIMES + 1)
        self._short = left < TIMES * needed
        return not self._short

    def _since_draw(self, clock: Clock) -> float:
        """Half a cosine from the last draw, or the start, to the end of the run."""
        start = max([0, *(epoch for epoch in self._drawn if epoch <= clock.epoch)])
        return half_cosine(clock.epoch - start, clock.epochs - start)

    @property
    def _first(self) -> int:
        """The number of the first step: Algorithm 1 counts from 1."""
        return int(self.preset == "algorithm1")

    def _length(self, clock: Clock) -> int:
        length = clock.epochs if self.unit == "epoch" else clock.epochs * clock.steps_per_epoch
        name, value = ("period", self.period) if self.period else ("periods", self.periods)
        require(value <= length, f"rifle: {name} must be at most the {length} {self.unit}s of the run, found {value}.")
        return length

    def _starts(self, clock: Clock) -> list[int]:
        return period_starts(self._length(clock), self.periods, self.period)

    def _position(self, clock: Clock) -> int:
        return clock.epoch if self.unit == "epoch" else clock.global_step
