"""Settings of the oracle experiment. Importing them loads no torch."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from rekindle.errors import UserError, number_of
from rekindle.spec import Count, check_value, hints

MOST_NUMBERS = 500_000_000  # Samples are float32, all seeds at once: 2 GB.


@dataclass(frozen=True)
class OracleSettings:
    """What is run: every method at every learning rate and noise.

    Args:
        seeds: How many; each has teachers, samples, order and head of its own.
        inputs: Width of X: 100 in the paper's definition, 200 in its sentence on the samples.
        hidden: Width of the hidden layer.
        samples: Training samples of each task; there are 1000 more to choose on and 1000 to test on.
        epochs: Of the source's training and of the fine-tuning, at least `periods`.
        batch_size: Samples a step.
        momentum: Of SGD.
        alpha: Strength of L2.
        periods: Of RIFLE and RIFLE-A.
        rates: Learning rates of the fine-tuning; the source is trained at 0.05.
        noises: Standard deviations of the noise on the training labels.
    """

    seeds: Annotated[int, Interval(ge=1, le=10_000)] = 10
    inputs: Annotated[int, Interval(ge=1, le=10_000)] = 100
    hidden: Annotated[int, Interval(ge=1, le=10_000)] = 50
    samples: Annotated[int, Interval(ge=1, le=1_000_000)] = 1000
    epochs: Annotated[int, Interval(ge=1, le=100_000)] = 200
    batch_size: Annotated[int, Interval(ge=1, le=65_536)] = 32
    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    alpha: Annotated[float, Interval(ge=0, le=1e9)] = 1e-4
    periods: Count = 4
    rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    noises: tuple[float, ...] = (0.1, 0.01)

    def __post_init__(self) -> None:
        for name, hint in hints(OracleSettings).items():
            check_value(f"--{name.replace('_', '-')}", getattr(self, name), hint)
        if self.seeds * max(self.inputs, self.hidden) * self.samples > MOST_NUMBERS:
            raise UserError(
                f"--seeds {self.seeds}, --samples {self.samples}, --inputs {self.inputs} and --hidden {self.hidden} together do not fit in "
                f"memory; give smaller ones, so that seeds x samples x width is at most {MOST_NUMBERS}."
            )
        for name in ("rates", "noises"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or not all(0 < value < 100 for value in values):
                raise UserError(f"--{name} must be different numbers above 0, found {', '.join(map(str, values))}.")
        if self.epochs < self.periods:
            raise UserError(f"--epochs must be at least the {number_of(self.periods, 'period')} of RIFLE, found {self.epochs}.")
