"""What to know of a finished run before its model is used: no bad result ends in silence."""

import math
from typing import Any

from rekindle.errors import some
from rekindle.report.format import percent, split_title
from rekindle.report.results import final_split

ENOUGH = 5  # Pictures of a class in a split, from which on it should be named at least once.


def cautions(result: dict[str, Any]) -> list[str]:
    """Sentences on a run that ended below its linear probe, near chance, without ever naming a class, or before there was a mean to keep.

    Args:
        result: What result.json is to hold.

    Returns:
        Sentences; none where nothing is wrong.
    """
    return [text for told in (below_probe, near_chance, unnamed, unaveraged) for text in told(result)]


def below_probe(result: dict[str, Any]) -> list[str]:
    """Worse than the linear probe, or the probe itself.

    Returns:
        One sentence, or none.
    """
    split = _deciding_split(result)
    if split is None:
        return []
    probe = (result.get("probe") or {}).get(split)
    accuracy = result[split]["accuracy"]
    if result["kept_epoch"] < 0:
        kept = "fine-tuning left fewer validation pictures right than the linear probe that it began with, which was kept; "
        return [kept + "give more --epochs, another --lr, or --method auto."]
    if probe is None or accuracy >= probe["accuracy"]:
        return []
    text = (
        f"fine-tuning ended at {_percent(accuracy)} {split_title(split)} accuracy, below the {_percent(probe['accuracy'])} of a linear "
        "probe on the network as it was; give more --epochs, or --keep best, which keeps the probe where it is better."
    )
    return [text]


def near_chance(result: dict[str, Any]) -> list[str]:
    """Not surely above what always naming the largest class gives: within two standard errors, and not halfway to being always right.

    Returns:
        One sentence, or none.
    """
    split = _deciding_split(result)
    if split is None:
        return []
    figures = result[split]
    confusion, count = figures["confusion"], figures["count"]
    share = max(sum(row) for row in confusion) / count
    if figures["accuracy"] > share + min(2 * math.sqrt(share * (1 - share) / count), (1 - share) / 2):
        return []
    text = (
        f"accuracy is {_percent(figures['accuracy'])}, and always naming the largest class gives {_percent(share)}: the network has "
        "learnt next to nothing; look for broken labels, give more --epochs, or another --lr."
    )
    return [text]


def unnamed(result: dict[str, Any]) -> list[str]:
    """Classes that are in a split and in no prediction for it.

    Returns:
        One sentence, or none.
    """
    split = final_split(result)
    if split not in result:
        return []
    confusion = result[split]["confusion"]
    named = [sum(row[column] for row in confusion) for column in range(len(confusion))]
    missing = [name for name, row, times in zip(result["classes"], confusion, named, strict=True) if times == 0 and sum(row) >= ENOUGH]
    if not missing:
        return []
    return [f"no {split_title(split)} picture was taken for {some(missing)}, though there are such pictures."]


def unaveraged(result: dict[str, Any]) -> list[str]:
    """The mean of the last epochs was asked for, and the run ended before them.

    Returns:
        One sentence, or none.
    """
    if result.get("averaged") != 0:
        return []
    text = (
        "--patience ended the run before the last quarter of its epochs, which --keep average averages, so that the weights kept are those "
        "of its last epoch alone; give fewer --epochs, or leave one of the two out."
    )
    return [text]


def _deciding_split(result: dict[str, Any]) -> str | None:
    return next((name for name in ("val", "test") if name in result), None)


def _percent(share: float) -> str:
    return f"{percent(share, 1)} %"
