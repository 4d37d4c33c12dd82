"""Settings of the oracle experiment. Importing them loads no torch."""

from dataclasses import dataclass

from rekindle.errors import UserError


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

    seeds: int = 10
    inputs: int = 100
    hidden: int = 50
    samples: int = 1000
    epochs: int = 200
    batch_size: int = 32
    momentum: float = 0.9
    alpha: float = 1e-4
    periods: int = 4
    rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    noises: tuple[float, ...] = (0.1, 0.01)

    def __post_init__(self) -> None:
        for name in ("seeds", "inputs", "hidden", "samples", "batch_size", "periods"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(self, name)}.")
        for name in ("rates", "noises"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or not all(0 < value < 100 for value in values):
                raise UserError(f"--{name} must be different numbers above 0, found {', '.join(map(str, values))}.")
        if self.epochs < self.periods:
            raise UserError(f"--epochs must be at least the {self.periods} periods of RIFLE, found {self.epochs}.")
