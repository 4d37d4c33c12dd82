"""What a run folder says of its own quality: which split counts, and which pictures it got wrong."""

from pathlib import Path
from typing import Any

from rekindle.records import Answer, read_predictions

WORST = 18


def final_split(result: dict[str, Any]) -> str:
    """ "test", or "val" where there is no test split.

    Returns:
        The name of a split.
    """
    return "test" if "test" in result else "val"


def worst_mistakes(folder: Path, split: str, limit: int) -> list[Answer]:
    """The wrong answers that the network was surest of, surest first; ties by path.

    Returns:
        At most `limit` answers.
    """
    wrong = [row for row in read_predictions(folder, split) if row["label"] != row["prediction"]]
    return sorted(wrong, key=lambda row: (-float(row["confidence"]), row["path"]))[:limit]


def confused_pairs(confusion: list[list[int]], classes: list[str], limit: int) -> list[dict[str, Any]]:
    """The commonest confusions of one class for another.

    Args:
        confusion: (C, C) counts, rows true.
        classes: C names.
        limit: At most so many.

    Returns:
        Dicts of true, predicted, count and share (of the true class), most frequent first, then by share.
    """
    found: list[dict[str, Any]] = [
        {"true": classes[i], "predicted": classes[j], "count": count, "share": count / sum(row)}
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(found, key=lambda pair: (-pair["count"], -pair["share"]))[:limit]
