"""Candidates of continuous settings, proposed one after the other by Optuna from the validation accuracies of those before.

Nothing is kept but the runs themselves: the next candidate is a function of the finished ones, so that a study goes on, on any machine,
where it was killed.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

from rekindle.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DIGITS = 3  # Significant ones of a proposed number, so that its text in tables is the number itself.
START = 3  # Candidates before the Gaussian process has enough to go by.
TRIES = 8  # Proposals that may repeat a candidate before the search is over.


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`, both included; whole numbers where both are.

    Attributes:
        low: Above 0 where `log`.
        high: Above `low`.
        log: Whether equal factors count as equal steps.
    """

    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """The value at a share of the way from low to high, by equal factors where `log`.

        Returns:
            A value from low to high.
        """
        return self.near(self.low * (self.high / self.low) ** share if self.log else self.low + share * (self.high - self.low))

    def near(self, value: float) -> float:
        """A value of the range as it is written, with at most `DIGITS` significant digits.

        Returns:
            The rounded value.
        """
        if self.whole:
            return round(value)
        rounded = round(value, DIGITS - 1 - floor(log10(abs(value)))) if value else 0.0
        return min(max(rounded, self.low), self.high)


@dataclass(frozen=True)
class Search:
    """How a method's candidates come about in a setting.

    Attributes:
        space: What is chosen, by name: from a range, or from a few values.
        trials: How many candidates there are in the end.
        settings: Makes the text and the settings of a run from chosen values.
    """

    space: Mapping[str, Range | Sequence[Any]]
    trials: int
    settings: Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]

    def start(self, number: int) -> dict[str, Any]:
        """One of the first `START` candidates, by Sobol's sequence: the middle of every range, then points apart from it and each other.

        Returns:
            A value by the name of each setting.
        """
        from scipy.stats import qmc

        shares = qmc.Sobol(len(self.space), scramble=False).random(1 << START.bit_length())[1 + number]
        return {
            name: space.at(share) if isinstance(space, Range) else space[int(share * len(space))]
            for (name, space), share in zip(self.space.items(), shares.tolist(), strict=True)
        }

    def propose(self, tried: Sequence[tuple[dict[str, Any], float | None]]) -> dict[str, Any] | None:
        """The next candidate: the start, then by a Gaussian process over those before (Optuna's `GPSampler`).

        Args:
            tried: Values and mean validation accuracy of each candidate, in the order of their trials; None for one with a failed run.

        Returns:
            Values by name; None where there is nothing new to try.

        Raises:
            UserError: Without Optuna.
        """
        before = [values for values, _ in tried]
        if len(tried) < START and (begun := self.start(len(tried))) not in before:
            return begun
        for attempt in range(TRIES):
            found = self._asked(tried, len(tried) + 1000 * attempt)
            if found not in before:
                return found
        return None

    def _asked(self, tried: Sequence[tuple[dict[str, Any], float | None]], seed: int) -> dict[str, Any]:
        optuna = _optuna()
        spaces = self._distributions()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=1)
        asked = optuna.create_study(sampler=sampler, direction="maximize")
        for values, accuracy in tried:
            state = optuna.trial.TrialState.FAIL if accuracy is None else optuna.trial.TrialState.COMPLETE
            asked.add_trial(optuna.trial.create_trial(state=state, params=values, distributions=spaces, value=accuracy))
        params = asked.ask(fixed_distributions=spaces).params
        return {name: space.near(params[name]) if isinstance(space, Range) else params[name] for name, space in self.space.items()}

    def _distributions(self) -> "dict[str, BaseDistribution]":
        kinds = _optuna().distributions
        found: dict[str, BaseDistribution] = {}
        for name, space in self.space.items():
            if not isinstance(space, Range):
                found[name] = kinds.CategoricalDistribution(space)
            elif space.whole:
                found[name] = kinds.IntDistribution(int(space.low), int(space.high), log=space.log)
            else:
                found[name] = kinds.FloatDistribution(space.low, space.high, log=space.log)
        return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("values from a range are proposed by Optuna; pip install 'rekindle[study]', or give a list of values.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
