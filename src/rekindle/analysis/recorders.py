"""The base of all recorders, each a file of its own beside this one: what a run writes down of itself, epoch by epoch.

Recording changes no weight.

A recorder is found when its module lies in `rekindle.analysis`: the class `GradientNorms` is `--record gradient_norms`.
"""

from functools import cache
from typing import Any

import rekindle.analysis
from rekindle.errors import UserError
from rekindle.method import Net, Source
from rekindle.registry import classes_below


class Recorder:
    """Looks at a network while it trains; it draws nothing and changes nothing."""

    def __init__(self, net: Net, source: Source) -> None: ...

    def gradients(self) -> None:
        """Called once a step: `.grad` holds the loss's gradient of the whole step, without penalties on weights."""

    def epoch(self) -> dict[str, Any]:
        """Called at the end of an epoch: what metrics.jsonl shall hold, as plain values; the next epoch begins empty.

        Returns:
            Plain values by name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What was seen since the epoch began, so that a run resumes mid-epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@cache
def kinds() -> dict[str, type[Recorder]]:
    """Every recorder class by name, sorted.

    Returns:
        Classes by the name that `--record` takes.
    """
    return classes_below(rekindle.analysis, Recorder)


def recorders(names: str, net: Net, source: Source) -> dict[str, Recorder]:
    """The recorders of a text such as "gradient_norms,weight_distance", by name; none for an empty one.

    Returns:
        One recorder a name, in the order of the text.

    Raises:
        UserError: If there is no recorder of a name.
        ValueError: If the network has nothing that one of them could look at.
    """
    return {name: kinds()[name](net, source) for name in checked(names)}


def checked(names: str) -> list[str]:
    """The single names of a text for `--record`.

    Returns:
        Names; none for an empty text.

    Raises:
        UserError: If there is no recorder of a name, or one is named twice.
    """
    asked = names.split(",") if names else []
    if len(set(asked)) < len(asked) or not set(asked) <= kinds().keys():
        raise UserError(f"--record takes {' and '.join(kinds())}, joined by a comma, each once; found {names!r}.")
    return asked
