"""What a run can be asked to write down of itself, epoch by epoch, beside loss and accuracy. Recording changes no weight."""

from typing import Any

from rekindle.method import Net, Source


class Recorder:
    """Looks at a network while it trains; it draws nothing and changes nothing."""

    def __init__(self, net: Net, source: Source) -> None: ...

    def gradients(self) -> None:
        """Called once a step: `.grad` holds the loss's gradient of the whole step, without penalties on weights."""

    def epoch(self) -> dict[str, Any]:
        """Called at the end of an epoch: what metrics.jsonl shall hold, as plain values; the next epoch begins empty."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What was seen since the epoch began, so that a run goes on in its midst."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


def recorders(names: str, net: Net, source: Source) -> dict[str, Recorder]:
    """The recorders of a text such as "gradient_norms,weight_travel", by name; none for an empty one.

    Raises:
        ValueError: If the network has nothing that one of them could look at.
    """
    from rekindle.analysis.gradient_norms import GradientNorms
    from rekindle.analysis.weight_travel import WeightTravel

    kinds: dict[str, type[Recorder]] = {"gradient_norms": GradientNorms, "weight_travel": WeightTravel}
    return {name: kinds[name](net, source) for name in names.split(",") if name}
