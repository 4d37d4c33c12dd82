"""What a study will run and about how long that takes: from its finished cells, or from a short trial of each method on each network."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from rekindle.errors import UserError
from rekindle.spec import RunSpec
from rekindle.study.grid import Cell, by_setting, uneven_choices
from rekindle.study.store import Study

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rekindle.training.speed import Trial

EVALUATION = 1 / 3
TRIAL_CLASSES = 4
# A trial's batch is the run's, or less where the pictures are large.
TRIAL_PIXELS, LEAST_IMAGES = 32 * 128 * 128, 8
PAPER_EPOCHS = 40
# Small enough to leave random weights where they are.
TINY_RATE = 1e-9


@dataclass(frozen=True)
class Plan:
    """A study before it is run.

    Attributes:
        rows: For each setting: setting, methods, seeds, runs, done, failed, and seconds left (None where unknown).
        seconds: What is left to compute, in seconds of one job; settings of unknown cost are not in it.
        measured: Settings whose cost comes from finished cells.
        notes: Sentences on what makes its comparison uneven, and on what could not be estimated, and why.
    """

    rows: list[dict[str, Any]]
    seconds: float
    measured: int
    notes: list[str]

    @property
    def runs(self) -> int:
        """All runs."""
        return sum(row["runs"] for row in self.rows)

    @property
    def done(self) -> int:
        """Runs that are finished."""
        return sum(row["done"] for row in self.rows)

    @property
    def failed(self) -> int:
        """Runs that failed."""
        return sum(row["failed"] for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON.

        Returns:
            Plain values.
        """
        rows = [{**row, "setting": str(row["setting"])} for row in self.rows]
        return {
            "runs": self.runs,
            "done": self.done,
            "failed": self.failed,
            "seconds_left": self.seconds,
            "settings": rows,
            "notes": self.notes,
        }


def plan(study: Study) -> Plan:
    """Count the cells of a study and estimate the cost of those that are not finished.

    Returns:
        Counts of cells by state, and the time and room that the rest takes.
    """
    cost = _Cost(study)
    rows, measured = [], 0
    for setting, groups in by_setting(study.grid.groups).items():
        row: dict[str, Any] = {
            "setting": setting,
            "methods": len(groups),
            "seeds": max(len(group.seeds) for group in groups),
            "runs": 0,
            "done": 0,
            "failed": 0,
        }
        seconds: list[float | None] = []
        for group in groups:
            known = study.final_cells(group)
            # A final run whose candidate is still to be chosen costs about as much as one of the first candidate.
            final = known or (next(iter(group.final_cells.values())) if study.selecting(group) else [])
            for cell in [*group.selection_cells, *final]:
                state = study.state(cell) if cell in known or cell.stage == "select" else "waiting"
                row["runs"] += 1
                row["done"] += state == "done"
                row["failed"] += state == "failed"
                if state not in ("done", "failed"):
                    seconds.append(cost.of(cell))
        row["seconds"] = None if None in seconds else sum(second for second in seconds if second is not None)
        measured += setting in cost.finished
        rows.append(row)
    return Plan(rows, sum(row["seconds"] or 0.0 for row in rows), measured, [*uneven_choices(study.grid), *cost.notes])


class _Cost:
    """Seconds of a cell: the mean of finished ones of its method and setting, of its setting, or from a trial."""

    def __init__(self, study: Study) -> None:
        self._threads = study.threads
        self.finished: dict[Any, list[float]] = defaultdict(list)
        self.notes: list[str] = []
        self._speeds: dict[tuple[Any, ...], float | None] = {}
        self._images: dict[tuple[Any, ...], dict[str, int] | None] = {}
        for cell in study.cells():
            if study.state(cell) == "done":
                timing = study.result(cell)["timing"]
                seconds = max(timing["seconds"], timing.get("wall_seconds", 0.0))
                for place in ((cell.setting, cell.method), cell.setting):
                    self.finished[place].append(seconds)

    def of(self, cell: Cell) -> float | None:
        for place in ((cell.setting, cell.method), cell.setting):
            if self.finished.get(place):
                return mean(self.finished[place])
        images, speed = self._seen(cell), self._speed(cell)
        return None if images is None or speed is None else images / speed

    def _seen(self, cell: Cell) -> float | None:
        """Pictures that a run trains on, with those it only looks at counted by their share of the work."""
        from rekindle.data import open_data
        from rekindle.fitting.choices import epochs_of

        spec = cell.spec
        key = spec.data, tuple(value for name, value in spec.data_options().items() if name != "seed")
        if key not in self._images:
            try:
                self._images[key] = {name: len(split.paths) for name, split in open_data(spec.data, **spec.data_options()).splits.items()}
            except (UserError, OSError) as error:
                self._images[key] = None
                self.notes.append(f"{cell.setting.task}: {str(error).splitlines()[0]}")
        counts = self._images[key]
        if counts is None:
            return None
        epochs = epochs_of(spec, counts["train"])
        return epochs * (counts["train"] + EVALUATION * counts.get("val", 0)) + EVALUATION * counts.get("test", 0)

    def _speed(self, cell: Cell) -> float | None:
        """Images a second of a method on a network, with the first values of its grid."""
        spec = cell.spec
        key = cell.method, spec.model, spec.image_size, spec.precision
        if key not in self._speeds:
            try:
                self._speeds[key] = images_per_second(spec, self._threads)
                self.notes.append(f"{cell.method} on {spec.model}: {self._speeds[key]:.0f} images/s in a short trial.")
            except (ValueError, RuntimeError, AssertionError) as error:  # A method that cannot work on this network says so here already.
                self._speeds[key] = None
                self.notes.append(f"{cell.method} on {spec.model}: {str(error).splitlines()[0]}")
        return self._speeds[key]


def images_per_second(spec: RunSpec, threads: int) -> float:
    """Training speed of a spec's network and methods on random pictures, with as many threads as the study gives a run.

    Returns:
        Pictures a second, above 0.
    """
    import torch

    from rekindle.training import speed
    from rekindle.training.precision import automatic_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            trial, x, y = _trial(spec, device)
            precision = automatic_precision(trial.model, x.shape[-1]) if spec.precision == "auto" else spec.precision
            trial.autocast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
            return speed.images_per_second(trial, x, y)
    finally:
        torch.set_num_threads(before)


def _trial(spec: RunSpec, device: "torch.device") -> "tuple[Trial, Tensor, Tensor]":
    """Network and methods as a run has them, but with random weights, and a batch of random pictures."""
    import torch

    from rekindle import models
    from rekindle.method import DataPasses, Source
    from rekindle.registry import parse, parse_direction
    from rekindle.training.defaults import make_optimizer
    from rekindle.training.speed import STEPS, Trial
    from rekindle.tuner import Tuner

    loaded = models.build(spec.model, weights="none")
    model = loaded.module.to(device).to(memory_format=torch.channels_last)
    size = spec.image_size or loaded.input_size
    images = max(LEAST_IMAGES, min(spec.batch_size, TRIAL_PIXELS // size**2))
    x = torch.rand(images, 3, size, size).to(device, memory_format=torch.channels_last)
    y = torch.arange(images, device=device) % TRIAL_CLASSES
    source = Source(model)
    head = models.replace_classifier(model, TRIAL_CLASSES, head=spec.head, head_type=spec.head_type)
    tuner = Tuner(
        model, parse(spec.method, spec.defaults), source=source, head=head, direction=parse_direction(spec.direction, spec.defaults),
        epochs=spec.epochs or PAPER_EPOCHS, steps_per_epoch=STEPS, seed=spec.seed,
    )  # fmt: skip
    if tuner.needs_data:
        tuner.prepare(DataPasses(lambda: iter([(x, y)])))
    optimizer = make_optimizer(spec.optimizer, tuner.param_groups(TINY_RATE))
    return Trial(model, tuner, optimizer, torch.nn.functional.cross_entropy), x, y
