"""About how long a run of a study takes: as its finished ones did, or by a short trial of its method on its network."""

import time
from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING, Any

from rekindle.errors import UserError, first_line
from rekindle.spec import AUTO, RunSpec
from rekindle.study.grid import Cell
from rekindle.study.store import Study

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rekindle.data import Dataset
    from rekindle.data.samples import Preprocessing
    from rekindle.method import Method
    from rekindle.training.speed import Trial

TRIAL_CLASSES = 4
# A trial's batch is the run's, or less where the pictures are large.
TRIAL_PIXELS, LEAST_IMAGES = 32 * 128 * 128, 8
PAPER_EPOCHS = 40
# Pictures of a task that tell how fast it is read.
SAMPLE = 24
# Seconds that a run takes before its first step, beside reading and looking at pictures.
STARTING = 1.5
# Small enough to leave random weights where they are.
TINY_RATE = 1e-9


class Cost:
    """Seconds of a cell: the mean of finished ones of its method and setting, of its setting, or from trials.

    A trial trains for a few steps on random pictures; a task's reading is timed on `SAMPLE` of its pictures, by way of the cache, and counts
    once, in the first of its cells.

    Args:
        study: Its finished cells are read.

    Attributes:
        finished: {setting, or (setting, method): seconds of its finished cells}.
        notes: Sentences on what trials found, and on what could not be estimated, and why.
    """

    def __init__(self, study: Study) -> None:
        self._threads = study.threads
        self.finished: dict[Any, list[float]] = defaultdict(list)
        self.notes: list[str] = []
        self._trials: dict[tuple[Any, ...], tuple[float, Preprocessing] | None] = {}
        self._datasets: dict[tuple[Any, ...], Dataset | None] = {}
        self._read: set[tuple[str, int]] = set()
        for cell in study.cells():
            if study.state(cell) == "done":
                timing = study.result(cell)["timing"]
                seconds = max(timing["seconds"], timing.get("wall_seconds", 0.0))
                for place in ((cell.setting, cell.method), cell.setting):
                    self.finished[place].append(seconds)

    def of(self, cell: Cell) -> float | None:
        """Seconds of a cell, from its start to its result; None where they are unknown, and a note says why.

        Returns:
            Seconds above 0, or None.
        """
        for place in ((cell.setting, cell.method), cell.setting):
            if self.finished.get(place):
                return mean(self.finished[place])
        dataset, trial = self._dataset(cell), self._trial(cell)
        if dataset is None or trial is None:
            return None
        from rekindle.fitting.choices import epochs_of
        from rekindle.fitting.look import MOST
        from rekindle.fitting.withholding import withheld_share
        from rekindle.fitting.workload import EVALUATION, Workload

        second, pictures = 1 / trial[0], {name: len(split.paths) for name, split in dataset.splits.items()}
        pictures["train"] -= round(pictures["train"] * withheld_share(_methods(cell.spec)))
        work = Workload.of(cell.spec, pictures, drawn=False)
        looking = EVALUATION * second * min(MOST, pictures["train"])
        training = epochs_of(cell.spec, pictures["train"]) * work.epoch(second)
        return self._reading(cell, dataset, trial[1]) + STARTING + looking + training + work.ending(second)

    def _reading(self, cell: Cell, dataset: "Dataset", how: "Preprocessing") -> float:
        """Seconds of reading a task's pictures at a size for the first time; 0 when another cell has been charged with it."""
        from rekindle.data import Cache, Pixels

        place = cell.spec.data, how.edge
        if place in self._read:
            return 0.0
        self._read.add(place)
        paths = [path for split in dataset.splits.values() for path in split.paths]
        some = paths[:: max(1, len(paths) // SAMPLE)]
        began = time.perf_counter()
        try:
            Pixels.load(some, how.edge, how.interpolation, threads=self._threads, cache=Cache.default())
        except UserError as error:
            self.notes.append(f"{cell.setting.task}: {first_line(error)}.")
        return (time.perf_counter() - began) * len(paths) / len(some)

    def _dataset(self, cell: Cell) -> "Dataset | None":
        from rekindle.data import open_data

        spec = cell.spec
        key = spec.data, tuple(value for name, value in spec.data_options().items() if name != "seed")
        if key not in self._datasets:
            try:
                self._datasets[key] = open_data(spec.data, **spec.data_options())
            except (UserError, OSError) as error:
                self._datasets[key] = None
                self.notes.append(f"{cell.setting.task}: {first_line(error)}.")
        return self._datasets[key]

    def _trial(self, cell: Cell) -> "tuple[float, Preprocessing] | None":
        """Images a second of a method on a network, with the first values of its grid, and how pictures are made for it."""
        spec = cell.spec
        key = cell.method, spec.model, spec.image_size, spec.precision, spec.freeze
        if key not in self._trials:
            try:
                self._trials[key] = speed, _ = _measured(spec, self._threads)
                self.notes.append(f"{cell.method} on {spec.model}: {speed:.0f} images/s in a short trial.")
            except (ValueError, RuntimeError, AssertionError) as error:  # A method that cannot work on this network says so here already.
                self._trials[key] = None
                self.notes.append(f"{cell.method} on {spec.model}: {first_line(error)}.")
        return self._trials[key]


def _measured(spec: RunSpec, threads: int) -> tuple[float, "Preprocessing"]:
    """Images a second of a spec's network and methods on random pictures, with as many threads as the study gives a run, and how it reads."""
    import torch

    from rekindle.training import speed
    from rekindle.training.precision import automatic_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            trial, how, x, y = _trial(spec, device)
            precision = automatic_precision(trial.model, x.shape[-1]) if spec.precision == "auto" else spec.precision
            trial.autocast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
            return speed.images_per_second(trial, x, y), how
    finally:
        torch.set_num_threads(before)


def _methods(spec: RunSpec) -> "list[Method]":
    """Those of a run, its frozen stages among them; where they are still to be found, none is frozen."""
    from rekindle.methods.layer_wise.freeze import with_frozen
    from rekindle.registry import parse

    chosen = parse(spec.method, spec.defaults)
    return chosen if spec.freeze in (None, AUTO) else with_frozen(chosen, spec.freeze)


def _trial(spec: RunSpec, device: "torch.device") -> "tuple[Trial, Preprocessing, Tensor, Tensor]":
    """Network and methods as a run has them, but with random weights, how pictures are made for it, and a batch of random ones."""
    import torch

    from rekindle import models
    from rekindle.data.samples import Preprocessing
    from rekindle.method import DataPasses, Source
    from rekindle.registry import parse_direction
    from rekindle.training.defaults import decoupled_by, make_optimizer, optimizer_for
    from rekindle.training.speed import STEPS, Trial
    from rekindle.tuner import Tuner

    loaded = models.build(spec.model, weights="none", image_size=spec.image_size or 0)
    model = loaded.module.to(device).to(memory_format=torch.channels_last)
    size = spec.image_size or loaded.input_size
    images = max(LEAST_IMAGES, min(spec.batch_size, TRIAL_PIXELS // size**2))
    x = torch.rand(images, 3, size, size).to(device, memory_format=torch.channels_last)
    y = torch.arange(images, device=device) % TRIAL_CLASSES
    source = Source(model)
    head = models.replace_classifier(model, TRIAL_CLASSES, head=spec.head, head_type=spec.head_type)
    tuner = Tuner(
        model, _methods(spec), source=source, head=head, direction=parse_direction(spec.direction, spec.defaults),
        epochs=spec.epochs or PAPER_EPOCHS, steps_per_epoch=STEPS, seed=spec.seed,
        decoupled=decoupled_by(spec),
    )  # fmt: skip
    if tuner.needs_data:
        tuner.prepare(DataPasses(lambda: iter([(x, y)]), held_out=lambda: iter([(x, y)])))
    optimizer = make_optimizer(optimizer_for(spec, model), tuner.param_groups(TINY_RATE))
    return Trial(model, tuner, optimizer, torch.nn.functional.cross_entropy), Preprocessing.of(loaded, size), x, y
