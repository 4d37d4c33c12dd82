"""The learning rate of the head.

A fresh linear layer is fitted at a pace set by kappa = lr_head * E||f||^2 / (1 - momentum), f the features that it reads. At the
backbone's rate kappa is a few hundred in one network and below 1 in another, whose head is then hardly begun when a short run ends.
"""

from rekindle.method import require

KAPPA = 60.0
"""Near the fastest on every network measured: below 20 the head is slow, above 170 it overshoots."""
TIED = "tied"


def head_rate(mean_square: float, momentum: float = 0.9) -> float:
    """The learning rate of SGD at which kappa is `KAPPA`.

    Args:
        mean_square: E||f||^2 of the features that the head reads, above 0; `rekindle.analysis.linear_probe.mean_square`.
        momentum: Of the optimiser, from 0 to below 1.

    Returns:
        A rate above 0: 6 / (mean_square + 1) with momentum 0.9.

    Examples:
        >>> round(head_rate(mean_square=450.0), 4), round(head_rate(mean_square=10.0), 4)
        (0.0133, 0.5455)
    """
    return KAPPA * (1 - momentum) / (mean_square + 1)  # The bias is one more weight, on a feature that is always 1.


def read_head_lr(head_lr: float | str, lr: float) -> float:
    """A head's learning rate as a number.

    Args:
        head_lr: Itself a number; a multiple of the backbone's such as "x10"; or "tied", the same as the backbone's, as in the papers.
        lr: The backbone's.

    Returns:
        A rate above 0.

    Raises:
        ValueError: For another text, or a number that is not above 0.

    Examples:
        >>> read_head_lr("x10", lr=0.002), read_head_lr("tied", lr=0.002), read_head_lr(0.05, lr=0.002)
        (0.02, 0.002, 0.05)
    """
    if head_lr == TIED:
        return lr
    multiple = _number(head_lr[1:]) if isinstance(head_lr, str) and head_lr.startswith("x") else None
    value = lr * multiple if multiple is not None else _number(head_lr)
    require(
        value is not None and 0 < value < float("inf"),
        f'head_lr must be a number above 0, a multiple of the backbone\'s such as "x10", or "tied", found {head_lr!r}.',
    )
    assert value is not None
    return value


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
