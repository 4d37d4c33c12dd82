"""One sentence of advice on a finished run: the first of a few plain rules that holds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from rekindle.errors import number_of
from rekindle.report.cautions import below_probe, near_chance, unnamed
from rekindle.report.format import percent, split_title
from rekindle.report.results import confused_pairs, final_split

ENOUGH = 5  # Pictures of a class, from which on its figures say something.
TAIL = 3  # The run's last third must still have lowered the loss ...
FALL = 0.05  # ... by this share.
OFTEN, SHARE = 3, 0.1  # A pair of classes that is confused so many times, and so often of its class.


def advice(result: dict[str, Any], history: Sequence[dict[str, Any]], minutes: float | None = None) -> str:
    """What to do next; empty where the run's cautions, which stand beside it, have said all there is.

    Args:
        result: What result.json holds.
        history: Lines of metrics.jsonl; may be empty.
        minutes: What the run was shortened to, or None.

    Returns:
        A sentence or several, or "".
    """
    split = final_split(result)
    longer = f"--minutes {2 * minutes:g}" if minutes else f"--epochs {2 * (len(history) or result['epochs'])}"
    said = {caution for caution in SAID_BY if {*caution(result)} & {*result.get("cautions", [])}}
    left = [rule for rule in RULES if not any(rule in SAID_BY[caution] for caution in said)]
    found = next((text for rule in left if (text := rule(result, split, history, longer))), "")
    return found or ("" if said else _otherwise(result, split))


def _ended_below_probe(result: dict[str, Any], split: str, history: Sequence[dict[str, Any]], longer: str) -> str:
    """The probe was kept, or would have been better."""
    probe = (result.get("probe") or {}).get(split)
    if result["kept_epoch"] >= 0 and (probe is None or result[split]["accuracy"] >= probe["accuracy"]):
        return ""
    return f"Fine-tuning did not beat the linear probe: try {longer}, another --lr, or --method auto."


def _never_found(result: dict[str, Any], split: str, history: Sequence[dict[str, Any]], longer: str) -> str:
    """A class none of whose pictures was named rightly."""
    missed = [row for row in result[split]["per_class"] if row["support"] >= ENOUGH and row["recall"] == 0]
    if not missed:
        return ""
    most = max(missed, key=lambda row: row["support"])
    return f"None of {number_of(most['support'], 'picture')} of {most['name']} was recognised: check their labels, or add pictures of that class."


def _still_falling(result: dict[str, Any], split: str, history: Sequence[dict[str, Any]], longer: str) -> str:
    """The last epoch was the best by far: the run was too short."""
    losses = [line["val"]["loss"] for line in history if "val" in line]
    if len(losses) < TAIL or not losses[-1] <= min(losses):
        return ""
    before = losses[-1 - max(1, len(losses) // TAIL)]
    if losses[-1] > (1 - FALL) * before:
        return ""
    return f"The validation loss was still falling when the run ended: train longer, with {longer}."


def _often_confused(result: dict[str, Any], split: str, history: Sequence[dict[str, Any]], longer: str) -> str:
    """The pair of classes that costs most."""
    worst = next(iter(confused_pairs(result[split]["confusion"], result["classes"], 1)), None)
    if worst is None or worst["count"] < OFTEN or worst["share"] < SHARE:
        return ""
    return (
        f"The commonest mistake is {worst['true']} taken for {worst['predicted']} ({worst['count']} of {round(worst['count'] / worst['share'])}): "
        "look at those pictures for wrong labels, or add more of both classes."
    )


def _overconfident(result: dict[str, Any], split: str, history: Sequence[dict[str, Any]], longer: str) -> str:
    """Confidences that differ from the share of right answers by more than chance explains."""
    measured = result[split]
    if measured["calibration_error"] < max(0.1, 1 / math.sqrt(measured["count"])):
        return ""
    return (
        f"Confidences are off by {percent(measured['calibration_error'], 0)} % on average: take them for an order, not for probabilities, "
        "until more validation pictures calibrate them."
    )


def _otherwise(result: dict[str, Any], split: str) -> str:
    if result[split]["accuracy"] == 1:
        return f"Every {split_title(split)} picture is right: measure it on pictures from elsewhere with rekindle evaluate before you rely on it."
    return "No single fault stands out: more labelled pictures, or a larger network (rekindle rank compares some), usually help most."


Rule = Callable[[dict[str, Any], str, Sequence[dict[str, Any]], str], str]
RULES: tuple[Rule, ...] = (_ended_below_probe, _never_found, _still_falling, _often_confused, _overconfident)
SAID_BY: dict[Callable[[dict[str, Any]], list[str]], tuple[Rule, ...]] = {
    below_probe: (_ended_below_probe, _still_falling),
    near_chance: RULES,
    unnamed: (_never_found,),
}
"""Which rules each caution makes needless."""
