"""Each method's training step over one with plain L2, and the memory that it takes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.machine import DEVICE
from benchmarks.memory import allocated
from benchmarks.ratios import in_turn
from rekindle import models
from rekindle.method import DataPasses, Source
from rekindle.registry import directions, methods, parse, parse_direction
from rekindle.training.defaults import make_optimizer
from rekindle.training.precision import automatic_precision
from rekindle.training.speed import Trial
from rekindle.tuner import Tuner

BASE, MANY, CLASSES, RATE = "l2", 10**6, 10, 1e-4
DIRECTED = ("l2_sp", "l1_sp", "l2_sp_fisher", "group_lasso_sp", "l2_mixture", "soft_targets")
GOALS = {
    "l2_sp": 1.05, "l2_sp_fisher": 1.05, "l1_sp": 1.05, "l2_mixture": 1.05, "group_lasso_sp": 1.10, "soft_targets": 1.25, "lwf": 1.25,
    "attention_transfer": 1.30, "feature_maps": 1.30, "fsp": 1.35, "cnn_dropout": 1.05, "stoch_norm": 1.05, "soft_targets+dtnh": 2.0,
    **{f"{name}+{direction}": 1.12 for name in DIRECTED[:3] for direction in ("dtnh", "grod")}, "l2_mixture+dtnh": 1.12,
    "group_lasso_sp+dtnh": 1.12,
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        model: As `rekindle.models.build` knows it; its weights are random, which cost as much as others.
        image_size: Pixels.
        batch_size: Images.
    """

    model: str
    image_size: int
    batch_size: int


def measure(setting: Setting, pairs: int, only: Sequence[str], told: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each recipe: its step over an L2 step, and its memory in float32 copies of the weights.

    Args:
        setting: What is trained.
        pairs: Of steps.
        only: Recipes; empty takes every method by itself, and some with each direction, as "NAME+DIRECTION".
        told: Given each row's recipe and ratio.
    """
    base, copies = trial(setting, BASE), _copies(setting, BASE)
    rows = []
    for recipe in only or list(recipes()):
        try:
            found = trial(setting, recipe)
        except ValueError as error:  # It is for other networks.
            told(f"{recipe} is left out: {error}")
            continue
        ratio = in_turn(found, base, pairs)
        kept, peak = (mine - plain for mine, plain in zip(_copies(setting, recipe), copies, strict=True))
        rows.append({"recipe": recipe, **vars(ratio), "goal": GOALS.get(recipe), "kept": kept, "peak": peak})
        told(f"{recipe}: {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})")
    return rows


def recipes() -> Iterator[str]:
    """Every method but the one that the others are compared with, then those with a direction."""
    yield from (name for name in methods() if name != BASE)
    yield from (f"{name}+{direction}" for name in DIRECTED for direction in directions() if direction != "plain_sum")


def trial(setting: Setting, recipe: str) -> Callable[[], None]:
    """One optimiser step of a recipe, as a run makes it, to be called again and again."""
    trial, x, y = _built(setting, recipe, DEVICE)
    return partial(trial.step, x, y)


def _built(setting: Setting, recipe: str, device: torch.device) -> tuple[Trial, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = models.build(setting.model, weights="none").module.to(device, memory_format=torch.channels_last)
    source = Source(model)
    head = models.replace_classifier(model, CLASSES)
    model.to(device)
    x = torch.rand(setting.batch_size, 3, setting.image_size, setting.image_size).to(device, memory_format=torch.channels_last)
    y = torch.arange(setting.batch_size, device=device) % CLASSES
    tuner = _tuned(model, source, head, recipe)
    tuner.prepare(DataPasses(lambda: iter([(x, y)]), held_out=lambda: iter([(x, y)])))
    optimizer = make_optimizer("SGD", tuner.param_groups(RATE))
    half = automatic_precision(model) == "bf16"
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if half else nullcontext
    return Trial(model, tuner, optimizer, torch.nn.functional.cross_entropy, autocast), x, y


def _tuned(model: torch.nn.Module, source: Source, head: list[str], recipe: str) -> Tuner:
    name, _, direction = recipe.partition("+")
    kind = methods().get(name)
    chosen = parse(name) if kind is None else [kind(**kind.example)]
    along = parse_direction(direction) if direction else None
    return Tuner(model, chosen, source=source, head=head, direction=along, epochs=MANY, steps_per_epoch=MANY)


def _copies(setting: Setting, recipe: str) -> tuple[float, float]:
    """What is held between steps beside the frozen source, and at the most while gradients are combined, in copies of the weights."""
    torch.manual_seed(0)
    model = models.build(setting.model, weights="none").module
    source = Source(model)
    head = models.replace_classifier(model, CLASSES)
    made = allocated(lambda: _tuned(model, source, head, recipe))
    trial, x, y = _built(setting, recipe, torch.device("cpu"))
    trial.step(x, y)
    with trial.autocast():
        loss = trial.tuner.loss(lambda part: trial.model(part).float(), x, y, trial.criterion)
    loss.backward()
    weights = 4 * sum(p.numel() for p in trial.model.parameters())
    return made.kept / weights, allocated(trial.tuner.gradients_).peak / weights
