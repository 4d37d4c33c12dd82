"""WiSE-FT: the weights between where training began and where it ended that are best on validation.

Wortsman and others: Robust fine-tuning of zero-shot models, CVPR 2022 (arXiv 2109.01903), section 3: (1 - a) * w0 + a * w, with the
whole network interpolated. Their w0 is CLIP with a classifier made of text; here it is the pre-trained network with its linear probe.
Without pictures to choose by, they take a = 0.5.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rekindle.analysis import mean_nll
from rekindle.training.mixing import differing_norms, mean_weights, reestimate_

GRID = tuple(step / 10 for step in range(11))
BLIND = 0.5  # The authors' share where nothing chooses.


@dataclass(frozen=True)
class Mixture:
    """A mixture of the start and the end of a run.

    Attributes:
        share: Of the end.
        tried: Share, accuracy and loss on validation, a dict for each that was measured.
        logits: (N, C) on validation, or None where nothing was measured.
    """

    share: float
    tried: list[dict[str, float]]
    logits: Tensor | None


def mix_(
    model: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], batches: Callable[[], Iterable[Tensor]], measure: Callable[[], Tensor] | None,
    labels: Tensor, grid: Sequence[float] = GRID,
) -> Mixture:  # fmt: skip
    """Give a network the best weights between two ends: most right on validation, and among equals the least loss.

    Args:
        model: Changed in place, left in evaluation mode.
        start: A state dict.
        end: Another.
        batches: One pass of training pictures, for BatchNorm's statistics where the ends differ in them.
        measure: Logits of the network on validation as it stands; None takes half of each.
        labels: (N,) of validation.
        grid: Shares of the end that are tried.
    """
    norms = differing_norms(model, [start, end])

    def put(share: float) -> None:
        model.load_state_dict(mean_weights([start, end], [1 - share, share]))
        reestimate_(model, norms if 0 < share < 1 else [], batches())

    if measure is None:
        put(BLIND)
        return Mixture(BLIND, [], None)
    tried: list[tuple[dict[str, float], Tensor]] = []
    for share in grid:
        put(share)
        logits = measure()
        right = float((logits.argmax(1) == labels).double().mean())
        tried.append(({"share": share, "accuracy": right, "loss": mean_nll(logits.softmax(1), labels)}, logits))
    best, logits = max(tried, key=lambda one: (one[0]["accuracy"], -one[0]["loss"]))
    put(best["share"])
    return Mixture(best["share"], [figures for figures, _ in tried], logits)


def summary(mixture: Mixture) -> dict[str, Any]:
    """What result.json says of it."""
    return {"share": mixture.share, "tried": mixture.tried}
