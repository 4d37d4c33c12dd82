"""One run, trained: from a frozen spec to its result. What lies in the folder is written by `rekindle.run`."""

import copy
import importlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import torch
from annotated_types import Interval
from torch import Tensor, nn

from rekindle import data as data_room
from rekindle import models
from rekindle.analysis import mean_nll
from rekindle.analysis.calibration import at_temperature, fit_temperature
from rekindle.analysis.linear_probe import LinearProbe, unseen_halves
from rekindle.analysis.recorders import checked, recorders
from rekindle.data.prefetch import choose_workers
from rekindle.data.samples import Preprocessing, Samples, samples_by_split
from rekindle.errors import Later, Unreadable, UserError, first_line, number_of
from rekindle.files import write_atomic
from rekindle.fitting import wise_ft
from rekindle.fitting.choices import (
    Choices,
    automatic_augment,
    back_to_probe,
    choose,
    from_checkpoint,
    own_start,
    reads,
    start_head,
    stated_batchnorm,
    with_head_rate,
    write_probe,
)
from rekindle.fitting.ending import figures, learn_familiarity
from rekindle.fitting.folder_names import check_free, slug
from rekindle.fitting.look import Look, batchnorm_for, chosen_rows, features_at, look_at
from rekindle.fitting.memory import size_warnings
from rekindle.fitting.run_lock import alone
from rekindle.fitting.setup import check_mixing, dark, data_hash, launch, leaks, make_criterion, uneven, weights_hash
from rekindle.fitting.shared import Shared, recall, remember
from rekindle.fitting.source_data import SourceData, one_pass
from rekindle.fitting.withholding import divided, withheld_share
from rekindle.fitting.workload import Stopwatch, Workload, checked_count
from rekindle.method import DataPasses, Direction, Method, PassOverData, Source
from rekindle.methods.layer_wise.freeze import with_frozen
from rekindle.methods.restarts.cosine import Cosine
from rekindle.models.merging import merge_
from rekindle.models.structure import has_batchnorm
from rekindle.records import DECISIVE, METRICS, RESULT, began_as, package_versions, read_environment, read_result, read_spec, write_spec
from rekindle.registry import parse, parse_augment, parse_direction
from rekindle.report.cautions import cautions
from rekindle.report.format import duration, split_title
from rekindle.run import Run, open_folder, write_predictions
from rekindle.spec import AUTO, RunSpec, check_value
from rekindle.training.checkpoints import Unfit, remove_states, states, unfit
from rekindle.training.defaults import decoupled_by, make_optimizer, optimizer_for
from rekindle.training.epoch_mean import HeldCosine, not_held
from rekindle.training.listener import Listener, Relay, tell_began, tell_caution, tell_ended
from rekindle.training.mixing import first_views
from rekindle.training.polyak import loss_and_square, polyak_lr
from rekindle.training.precision import automatic_precision
from rekindle.training.speed import seconds_per_image
from rekindle.tuner import Tuner

if TYPE_CHECKING:
    from rekindle.data.augment import Augment
    from rekindle.training.fabric import Fabric
    from rekindle.training.trainer import Training

CAREFUL = 0.9  # Share of the measured time that epochs are planned for: methods and checkpoints take some too.
LEAD = 2  # Validation pictures: fine-tuning gains much where it gains, and one picture of a few is luck (docs/results/defaults).
LONG = 900.0  # Seconds that may be more than somebody meant to wait.
Found = TypeVar("Found")
DEVICES = ("auto", "cpu", "cuda", "mps")


def execute(
    spec: RunSpec, *, out: Path, listener: Listener, resumed: Path | None = None, cache: bool = True, workers: int | None = None,
    device: str = "auto", methods: Sequence[Method] | None = None, name: str | None = None, keep_checkpoints: bool = False,
    shared: Shared | None = None, dataset: data_room.Dataset | None = None, draws: bool = True,
) -> Run:  # fmt: skip
    """Train one run, or go on with it, or find it finished.

    Args:
        spec: What to train.
        out: Folder in which the run's own folder is made.
        listener: Told of progress.
        resumed: The run folder to go on with.
        cache: Keep decoded pictures for later runs.
        workers: Threads that prepare the next batches meanwhile; None chooses.
        device: "auto", "cpu", "cuda" or "mps".
        methods: The spec's methods as objects, which are copied; None makes them from its recipe.
        name: Of the run's folder; None makes one of data, model, method, seed and id.
        keep_checkpoints: Keep them when the run is done.
        shared: What it has in common with other runs of a search.
        dataset: The spec's data, where they are open.
        draws: Draw the pictures of its page, and learn what strangers are told by; without, `rekindle report` draws, and
            `predict --unsure` does not work with the run.

    Raises:
        UserError: For bad input, in one sentence.
    """
    began = time.perf_counter()
    chosen = parse(spec.method, spec.defaults) if methods is None else copy.deepcopy(list(methods))
    direction, augment = parse_direction(spec.direction, spec.defaults), _augment(spec)
    check_mixing(augment, chosen)
    checked(spec.record or "")
    if device not in DEVICES:
        raise UserError(f"--device must be one of {', '.join(DEVICES)}, found {device!r}.")
    check_value("--workers", workers, Annotated[int, Interval(ge=0, le=256)] | None)
    if spec.freeze:
        chosen = with_frozen(chosen, spec.freeze)
    dataset = dataset or data_room.open_data(spec.data, **spec.data_options())
    if spec.test_every_epoch and "test" not in dataset.splits:
        raise UserError(
            f"--test-every-epoch needs a test split, and {spec.data} has none; add a test folder beside train, or leave the option out."
        )
    if "val" not in dataset.splits and not (spec.test and "test" in dataset.splits):
        raise UserError(
            f"--val-fraction 0 leaves {spec.data} nothing to measure a run on; give a share above 0, or a test split and no --no-test."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)  # Random weights are part of what the seed decides.
        loaded = models.build(spec.model, weights=spec.weights, image_size=spec.image_size or 0)
    if loaded.note:
        listener.note(loaded.note)
    spec = spec.located()
    preprocessing = Preprocessing.of(loaded, spec.image_size or 0, spec.flip)
    if spec.augment == AUTO:  # What it stands for is part of the run, and of its id.
        spec = replace(spec, augment=automatic_augment(spec, loaded.module))
        augment = _augment(spec)
    if spec.precision == "auto" and spec.defaults != "0.1":  # And so is what this stands for on this machine.
        # Several processes must agree, so they measure nothing.
        size = preprocessing.image_size if spec.devices == 1 and device in ("auto", "cpu") else None
        spec = replace(spec, precision=automatic_precision(loaded.module, size, device))
    if spec.weights != "none":
        _import_ahead("sklearn.linear_model", "sklearn.model_selection")
    fabric = launch(spec, device)
    for text in size_warnings(spec, loaded.module, preprocessing.image_size, len(dataset.splits["train"].paths), fabric.device):
        listener.note(text)
    paths = [path for split in dataset.splits.values() for path in split.paths]
    pixels = data_room.Pixels.load(
        paths, preprocessing.edge, preprocessing.interpolation, progress=lambda done: listener.progress("reading pictures", done, len(paths)),
        cache=data_room.Cache.default() if cache else None, note=listener.note,
    )  # fmt: skip
    source_data = None
    if spec.source_data:
        source_data = SourceData.load(spec.source_data, preprocessing, data_room.Cache.default() if cache else None, listener)
        if not any(method.uses_source_data for method in chosen):
            listener.note("--source-data is read for nothing: no method looks at data of the source; take l2_sp_fisher, or leave it out.")
    content, weights = data_hash(dataset, pixels, source_data), weights_hash(loaded.module)
    run_id = spec.run_id(content, weights)
    made = f"{slug(Path(spec.data.removeprefix('hf:')).resolve().name)}-{slug(spec.model)}-{slug(spec.method)}-s{spec.seed}-{run_id}"
    folder = resumed or out / (name or made)
    if resumed is not None and began_as(resumed) != run_id:
        raise UserError(
            f"the data or the weights of {resumed} changed since it began, so it cannot go on; start a new run without --resume."
        )
    if name and resumed is None:
        check_free(folder, run_id)
    dataset = replace(dataset, notes=[*dataset.notes, *leaks(dataset, pixels), *dark(dataset, pixels), *uneven(spec, dataset)])
    for text in [*dataset.notes, *(f"caution: {sentence}" for sentence in dataset.cautions)]:
        listener.note(text)
    with alone(folder, fabric, listener.note):
        if _is_finished(folder, listener.note):
            listener.note(f"{folder} is finished already; nothing was trained again.")
        else:
            if resumed is not None and fabric.is_global_zero and read_spec(folder) != spec:
                write_spec(folder, spec)  # The data or the weights lie elsewhere now.
            sight = f"{content} {spec.model} {weights} {preprocessing} {spec.seed} {spec.batch_size} {spec.head} {fabric.device} {fabric.world_size} {spec.precision} {withheld_share(chosen)}"
            job = _Job(
                spec=spec, fabric=fabric, loaded=loaded, methods=chosen, direction=direction, dataset=dataset, pixels=pixels,
                preprocessing=preprocessing, run_id=run_id, folder=folder, listener=listener, began=began, workers=workers, augment=augment,
                source_data=source_data, shared=shared or recall(sight), keep_checkpoints=keep_checkpoints, draws=draws,
            )  # fmt: skip
            job.run()
            remember(sight, job.shared)
    return Run(folder)


@dataclass(kw_only=True)
class _Job:
    """One run between its checks and its result."""

    spec: RunSpec
    fabric: "Fabric"
    loaded: models.LoadedModel
    methods: list[Method]
    direction: Direction
    dataset: data_room.Dataset
    pixels: data_room.Pixels
    preprocessing: "Preprocessing"
    run_id: str
    folder: Path
    listener: Listener
    began: float
    workers: int | None
    augment: "Augment | None"
    source_data: SourceData | None
    shared: Shared
    keep_checkpoints: bool
    draws: bool
    _seconds: float | None = field(default=None, init=False)  # For training on a picture, by the pace of the look.
    _held: "Samples | None" = field(default=None, init=False)  # Training pictures that a method keeps out of training.

    _own: dict[str, Tensor] = field(default_factory=dict, init=False)  # Of the network before training, what its source has not.
    _merged: bool = field(default=False, init=False)  # Whether the network's adapters are in its layers, to be mixed with its start.

    def run(self) -> None:
        """Train from the newest checkpoint or the start, then write everything, the result last."""
        splits = self._splits()
        with torch.random.fork_rng(devices=[self.fabric.device] if self.fabric.device.type == "cuda" else []):
            training, choices = self._resumed(splits) or self._training(splits, None)
            self._announce(training, choices, splits)
            if self.fabric.is_global_zero:
                rewrite_metrics(self.folder, training.history)
                if not self.shared.trial:
                    tell_began(self.listener, self.folder, self._settings(training.tuner), training.history)
            training.fit()
            self._finish(training, splits, choices)
        if self.fabric.world_size > 1:
            self.fabric.barrier()  # Searches, folds and scripts read on every rank what the first one has written.

    def _settings(self, tuner: Tuner) -> dict[str, Any]:
        """For trackers: the options, with the rates that were chosen."""
        return {"run": self.run_id, **self.spec.to_dict(), "lr": tuner.lr, "head_lr": tuner.head_lr}

    def _resumed(self, splits: "dict[str, Samples]") -> "tuple[Training, Choices] | None":
        """A training at the newest checkpoint that it can go on from, or None where no checkpoint can be read.

        Raises:
            UserError: If there are whole checkpoints, but none that fits; they are the work of another version, and worth keeping.
        """
        misfit = ""
        for path, state in self._states():
            # Building changes these in place, and a state may turn out not to fit after that.
            before = copy.deepcopy((self.loaded, self.methods, self.direction))
            try:
                training, choices = self._training(splits, state)
                training.load(state)
                if any(method.keeps_data for method in training.tuner.methods):
                    training.tuner.prepare(self._passes(splits["train"], None))
            except Unfit as error:
                misfit = str(error)
                self._damaged(path, misfit)
                self.loaded, self.methods, self.direction = before
            else:
                self._tell_versions(state)
                return training, choices
        if misfit:
            raise UserError(
                f"no checkpoint of {self.folder} fits this run ({misfit}); resume it with the rekindle that wrote them, "
                f"or remove {self.folder / 'checkpoints'} to start anew."
            )
        return None

    def _states(self) -> "Iterator[tuple[Path, dict[str, Any]]]":
        """States of this run, then of one that differs in nothing that matters here, newest first."""
        yield from states(self.folder / "checkpoints", self._damaged)
        if self.shared.start is not None:
            yield from states(self.shared.start, self._damaged)

    def _damaged(self, path: Path, why: str) -> None:
        older = any(other.name < path.name for other in path.parent.glob("epoch*.safetensors"))
        then = "an older checkpoint is tried" if older else "there is no older one"
        self.listener.note(f"{path} is damaged ({why}); {then}.")

    def _tell_versions(self, state: dict[str, Any]) -> None:
        """Say where a checkpoint is of another torch or rekindle than goes on with it; early ones leave that to the run's start."""
        stated = state.get("packages")
        written = stated if isinstance(stated, dict) else read_environment(self.folder).get("packages", {})
        now = package_versions(DECISIVE)
        changed = [f"{name} {written[name]}, now {now[name]}" for name in DECISIVE if written.get(name, now[name]) != now[name]]
        if changed:
            self.listener.note(f"the run was written under {' and '.join(changed)}; its end may differ from that of a run in one piece.")

    def _splits(self) -> "dict[str, Samples]":
        workers = choose_workers(self.fabric.device) if self.workers is None else self.workers
        options = {"workers": workers, "augment": self.augment, "views": self.spec.views}
        splits = samples_by_split(self.dataset, self.pixels, self.preprocessing, **options)
        if withheld_share(self.methods):
            # Before anything looks at them: the linear probe that the head begins with must not have seen them either.
            self.dataset, kept, held = divided(self.dataset, self.methods, self.spec.seed, self.spec.data)
            self.listener.note(self.dataset.notes[-1])
            splits["train"], self._held = splits["train"].subset(kept), splits["train"].subset(held)
        return splits

    def _training(self, splits: "dict[str, Samples]", state: dict[str, Any] | None) -> "tuple[Training, Choices]":
        from rekindle.training.trainer import Training

        spec, train = self.spec, splits["train"]
        model = self.loaded.module.to(self.fabric.device).to(memory_format=torch.channels_last)
        look = self._look(model, splits) if state is None and spec.weights != "none" else None
        if look is None and state is None:
            with self._first_pass(), torch.no_grad():
                model.eval()(self._first(train))
        with unfit():
            resumed = from_checkpoint(state, spec, len(train)) if state is not None else None
        choices = resumed or self._choose(model, splits, look)
        source = Source(model)
        torch.manual_seed(spec.seed)
        self._head_type = models.own_head_type(model, spec.head, spec.head_type)
        head = models.replace_classifier(model, len(self.dataset.classes), head=spec.head, head_type=self._head_type)
        torch.manual_seed(spec.seed * 1009 + self.fabric.global_rank)
        criterion = make_criterion(spec, train.labels, len(self.dataset.classes))
        if state is None and spec.minutes is not None:
            choices = self._in_time(choices, model, splits, criterion)
        try:
            tuner = self._tuner(model, source, head, choices, len(train))
            self._own = own_start(tuner)
            if state is None:
                with self.fabric.autocast():
                    read = look if look is not None and reads(tuner, look.features, self._first(train)) else None
                choices = start_head(self._rate(choices, tuner, read, train), tuner, read)
                choices = self._agreed(with_head_rate(choices, self._named, self.methods, look, model))
                if tuner.needs_data:
                    tuner.prepare(self._passes(train, read))
            watching = recorders(spec.record or "", tuner.net, tuner.source)
            optimizer = make_optimizer(self._named.optimizer, tuner.param_groups(choices.lr, choices.head_lr))
        except ValueError as error:  # A method that cannot work on this network, on these images or for so few epochs.
            raise UserError(str(error)) from None
        if self.fabric.is_global_zero and not (self.folder / "spec.yaml").is_file():
            open_folder(self.folder, self.run_id, spec, self.dataset)
        begun = partial(self._first_epoch, choices.probe, source.model, splits)
        writer = _MetricsWriter(self.listener, self.folder, self.fabric.is_global_zero, begun, self._workload(splits))
        training = Training(
            fabric=self.fabric, model=model, tuner=tuner, optimizer=optimizer, criterion=criterion, train=train, val=self._checked(splits),
            batch_size=spec.batch_size, seed=spec.seed, folder=self.folder / "checkpoints", keep=spec.keep, listener=writer,
            grad_accum_steps=spec.grad_accum_steps, recorders=watching, watched=splits["test"] if spec.test_every_epoch else None,
            balanced=spec.sampler == "balanced", clip_norm=spec.clip_norm, ema=spec.ema, patience=spec.patience, choices=choices.to_dict(),
        )  # fmt: skip
        return training, choices

    def _checked(self, splits: "dict[str, Samples]") -> "Samples | None":
        """The validation pictures that are measured after each epoch."""
        val, spec = splits.get("val"), self.spec
        if val is None:
            return None
        count = checked_count(spec, len(splits["train"]), len(val))
        return val if count == len(val) else val.subset(data_room.order(len(val), spec.seed, 0)[:count].sort().values)

    def _first_epoch(self, probe: LinearProbe | None, model: nn.Module, splits: "dict[str, Samples]") -> None:
        """What takes as long as a small epoch, and is not needed before there is one to show."""
        if self._draws:
            _import_ahead("rekindle.report.figures")
        if probe is not None and "val" in splits and not (self.shared.trial and "val" in self.shared.answers):
            for figures in self._probe_on(probe, model, splits, "val").values():
                self.listener.note(f"linear probe: validation accuracy {100 * figures['accuracy']:.1f} %.")
        self._write_samples(splits["train"])

    def _write_samples(self, train: "Samples") -> None:
        """Draw samples.png, once."""
        if self._draws and not (self.folder / "samples.png").is_file():
            from rekindle.report.run_pictures import write_samples

            write_samples(self.folder, train, self.dataset.classes, self.spec.seed)

    def _look(self, model: nn.Module, splits: "dict[str, Samples]") -> Look:
        """What is seen of the features, which the first run of a search tells, and any other run."""
        began, told, look = time.perf_counter(), self.shared.trial and self.shared.look is not None, self.shared.look
        if look is None:
            watch = Stopwatch(self.listener.progress)
            with self._first_pass(), self.fabric.autocast():  # As the run will see them, and at its pace.
                look = look_at(model, splits["train"], self.spec.seed, self.fabric.device, watch, self.listener.progress)
            self.shared.look, self.shared.pace = look, watch.seconds
        self._seconds = None if told else self.shared.pace
        if look.probe.accuracy is not None and not told:
            self.listener.note(
                f"linear probe: cross-validated accuracy {100 * look.probe.accuracy:.1f} %, after {time.perf_counter() - began:.0f} s."
            )
        return look

    @contextmanager
    def _first_pass(self) -> Iterator[None]:
        """Around a run's first forward pass, where a size that the network cannot take shows."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:
            size = self.preprocessing.image_size
            raise UserError(
                f"{self.spec.model} failed on its first images of {size} x {size} pixels ({first_line(error)}); "
                f"try --image-size {self.loaded.input_size}."
            ) from error

    def _probe_on(self, probe: LinearProbe, model: nn.Module, splits: "dict[str, Samples]", name: str) -> dict[str, dict[str, float]]:
        """{split: accuracy and loss of a linear probe on it}, or nothing where the pre-trained network `model` overflows there."""
        answers, samples = self._probe_answers(probe, model, splits, name), splits[name]
        if answers is None:
            return {}
        hits = answers.argmax(1) == samples.labels
        return {name: {"accuracy": float(hits.double().mean()), "loss": mean_nll(answers, samples.labels), "count": len(samples)}}

    def _probe_answers(self, probe: LinearProbe, model: nn.Module, splits: "dict[str, Samples]", name: str) -> Tensor | None:
        """(N, C) probabilities that a linear probe gives a split, computed once; None where the pre-trained network `model` overflows there."""
        known = self.shared.answers
        if name not in known:
            with self.fabric.autocast():
                answers = probe.probabilities(features_at(model, splits[name], None, self.fabric.device, self.listener.progress))
            known[name] = answers if answers.isfinite().all() else None
            if known[name] is None:
                self.listener.note(
                    f"{self.spec.model} has features that are not finite on the {split_title(name)} pictures; its linear probe has no figures there."
                )
        return known[name]

    def _choose(self, model: nn.Module, splits: "dict[str, Samples]", look: Look | None) -> Choices:
        """The same on every rank."""
        spec, train = self.spec, splits["train"]
        batchnorm = stated_batchnorm(spec, self.methods)
        if batchnorm == "auto" and look is not None:
            with self.fabric.autocast():
                self.shared.batchnorm = self.shared.batchnorm or batchnorm_for(
                    model, train, look, spec.seed, self.fabric.device, spec.batch_size, self.listener.progress
                )
        if batchnorm == "auto":
            batchnorm = self.shared.batchnorm or "batch"
        choices = replace(
            choose(self._named, len(train), self.methods, look, batchnorm),
            baseline=look.summary() if look else {},
        )
        return self._agreed(choices)

    def _agreed(self, value: Found) -> Found:
        """What the first rank found, on all of them: each looks for itself, and may round otherwise."""
        return self.fabric.broadcast(value) if self.fabric.world_size > 1 else value

    def _in_time(self, choices: Choices, model: nn.Module, splits: "dict[str, Samples]", criterion: Any) -> Choices:
        """The choices with as many epochs, up to those chosen, as the rest of the time allows; the same on every rank."""
        assert self.spec.minutes is not None
        plain = seconds_per_image(model, self._some(splits["train"]), criterion, self.fabric.autocast) / self.fabric.world_size
        work = self._workload(splits)
        every = work.epoch(plain)
        left = 60 * self.spec.minutes - (time.perf_counter() - self.began) - work.ending(plain)
        epochs = max(1, min(choices.epochs, int(CAREFUL * left / every)))
        if epochs < choices.epochs:
            self.listener.note(f"--minutes {self.spec.minutes:g} shortens the run from {choices.epochs} to {number_of(epochs, 'epoch')}.")
        if CAREFUL * left < every:
            self.listener.note(f"one epoch takes {duration(every)}, which is more than --minutes {self.spec.minutes:g} leaves.")
        return replace(choices, epochs=self._agreed(epochs))

    def _workload(self, splits: "dict[str, Samples]") -> Workload:
        steps = self._steps(len(splits["train"]))
        cost = math.prod(method.step_cost(steps) for method in self.methods)
        return Workload.of(self.spec, {name: len(samples) for name, samples in splits.items()}, self._draws, cost)

    def _steps(self, images: int) -> int:
        """Of an epoch, on each rank."""
        return len(data_room.split_batches(images, self.spec.batch_size, torch.arange(images), world=self.fabric.world_size))

    @cached_property
    def _named(self) -> RunSpec:
        """The spec with the optimiser that "auto" stands for."""
        return replace(self.spec, optimizer=optimizer_for(self.spec, self.loaded.module))

    def _rate(self, choices: Choices, tuner: Tuner, look: Look | None, train: "Samples") -> Choices:
        """The choices with the backbone's rate from a few gradients, the same on every rank, where it was left open."""
        spec = self.spec
        if spec.lr or look is None or self._named.optimizer != "SGD" or spec.defaults == "0.1":
            return choices
        head = tuner.net.head_parameters()
        backbone = [name for name in tuner.net.parameters() if name not in head]
        twin = copy.deepcopy(tuner.net.model).train()
        # Smoothed or mixed labels have a loss that cannot fall to 0, which Polyak's step counts on.
        sharp = make_criterion(replace(spec, label_smoothing=0.0), train.labels, len(self.dataset.classes))
        measured, seen = [], chosen_rows(train.labels, spec.seed)
        for number, (rows, probe) in enumerate(unseen_halves(look.features, look.labels, look.probe.strength, spec.seed)):
            self.listener.progress("measuring a few gradients", number, 2)
            write_probe(twin.get_submodule(tuner.net.head[0]), probe)
            x, y = self._batch(train, seen[rows[: spec.batch_size]])
            measured.append(loss_and_square(twin, backbone, x, y.argmax(1) if y.is_floating_point() else y, sharp, self.fabric.autocast))
        normalised = choices.batchnorm == "batch" and has_batchnorm(twin)
        return replace(choices, lr=self._agreed(polyak_lr(measured, normalised)))

    def _some(self, train: "Samples") -> Iterator[tuple[Tensor, Tensor]]:
        """Two batches of training pictures as the run will see them."""
        order = data_room.order(len(train), self.spec.seed, 0)
        for number in range(2):
            rows = torch.arange(min(self.spec.batch_size, len(train))) + number * self.spec.batch_size
            yield self._batch(train, order[rows % len(train)])

    def _batch(self, train: "Samples", rows: Tensor) -> tuple[Tensor, Tensor]:
        """Training pictures as the run will see them in its first epoch."""
        x, y = train.training(rows, self.spec.seed, 0, self.fabric.device)
        return x.to(memory_format=torch.channels_last), y

    def _first(self, train: "Samples") -> Tensor:
        """The pictures that the look began with."""
        rows = chosen_rows(train.labels, self.spec.seed)[:8]
        return train.evaluation(rows, self.fabric.device).to(memory_format=torch.channels_last)

    def _passes(self, train: "Samples", look: Look | None) -> DataPasses:
        """Training images, and the source's where they are given, for methods that look at them before training."""

        def over(samples: "Samples") -> PassOverData:
            return lambda: one_pass(samples, self.spec.batch_size, self.spec.seed, self.fabric.device)

        source = None if self.source_data is None else over(self.source_data.samples)
        known = (look.features, look.labels) if look is not None and len(look.labels) == len(train) else None
        held = None if self._held is None else over(self._held)
        return DataPasses(over(train), source, self.listener.note, self.listener.progress, known, held)

    def _tuner(self, model: nn.Module, source: Source, head: list[str], choices: Choices, images: int) -> Tuner:
        """Methods around a network that has its new head."""
        return Tuner(
            model, choices.methods(self.methods), source=source, head=head, source_names={} if self.spec.weights == "none" else None,
            direction=self.direction, schedule=(HeldCosine if self.spec.keep == "average" else Cosine)(self.spec.warmup), epochs=choices.epochs, steps_per_epoch=self._steps(images), seed=self.spec.seed,
            decoupled=decoupled_by(self.spec),
        )  # fmt: skip

    def _announce(self, training: "Training", choices: Choices, splits: "dict[str, Samples]") -> None:
        tuner = training.tuner
        counts = ", ".join(f"{len(split.paths)} {name.replace('_', ' ')}" for name, split in self.dataset.splits.items())
        self.listener.note(f"{self.folder}: {number_of(len(self.dataset.classes), 'class')}; images: {counts}.")
        if self.spec.epochs and tuner.epochs != self.spec.epochs:
            self.listener.note(f"the method trims the run to {tuner.epochs} of {number_of(self.spec.epochs, 'epoch')}.")
        for text in [*tuner.warnings(), *(not_held(tuner.rate_owners) if self.spec.keep == "average" else [])]:
            self.listener.note(text)
        if training.resumed:
            self.listener.note(f"continuing after {len(training.history)} of {number_of(tuner.epochs, 'epoch')}.")
        if (checked := self._checked(splits)) is not None and len(checked) < len(splits["val"]):
            self.listener.note(
                f"each epoch measures {len(checked)} of the {number_of(len(splits['val']), 'validation picture')}, the end all of them."
            )
        by = "" if self._named.optimizer == "SGD" else f"{self._named.optimizer}, "
        in_half = " in bfloat16" if self.spec.precision == "bf16" else ""
        start = {"linear_probe": "from the linear probe", "zero": "from zero", "random": "from a random draw"}[choices.head_init]
        more = [*(["BatchNorm frozen"] if choices.batchnorm == "frozen" else []), *([self.spec.augment] if self.spec.augment else [])]
        self.listener.note(
            f"{number_of(tuner.epochs, 'epoch')} of {number_of(tuner.steps_per_epoch, 'step')} on {self.fabric.device}{in_half}; {by}learning rate {choices.lr:g}, of the "
            f"head {choices.head_lr:.2g}, which starts {'; '.join([start, *more])}."
        )
        if self._seconds is not None:
            seconds, work = self._seconds / self.fabric.world_size, self._workload(splits)
            left = (tuner.epochs - len(training.history)) * work.epoch(seconds) + work.ending(seconds)
            hint = "; --minutes 10 trains as well as that allows" if left > LONG and self.spec.minutes is None else ""
            self.listener.note(f"by the pace so far, about {duration(left)} to go{hint}.")

    def _finish(self, training: "Training", splits: "dict[str, Samples]", choices: Choices) -> None:
        found, kept = self._evaluated(training, splits, "val"), training.kept_epoch
        if self._agreed(self._probe_is_better(choices, training, splits, found)):  # What follows takes every rank.
            assert choices.probe is not None
            back_to_probe(training.tuner, choices.probe, self._own)
            found, kept = self._evaluated(training, splits, "val"), -1
        mixed = self._mixed(choices, training, splits)
        if mixed is not None and mixed.logits is not None:
            found, kept = {"val": mixed.logits}, kept if mixed.share else -1
        if self.spec.test:
            found |= self._evaluated(training, splits, "test")
        if not self.fabric.is_global_zero:
            return
        baseline = dict(choices.baseline)
        if choices.probe is not None:
            for name in found:
                baseline |= self._probe_on(choices.probe, training.tuner.source.model, splits, name)
        temperature = self._temperature(found, splits)
        answers = {name: at_temperature(logits, temperature) for name, logits in found.items()}
        write_predictions(self.folder, self.dataset, answers)
        if self._draws:
            learn_familiarity(
                self.folder, training.model, splits, answers, self.spec.seed, self.fabric.device, self.listener, self.fabric.autocast
            )  # fmt: skip
        models.save_model(self.folder, training.model, {**self._recipe(training.tuner), "temperature": temperature})
        result: dict[str, Any] = {
            "id": self.run_id, "status": "done", "method": self.spec.method, "model": self.spec.model, "data": self.spec.data,
            "direction": self.spec.direction, "freeze": self.spec.freeze, "seed": self.spec.seed, "lr": training.tuner.lr, "head_lr": training.tuner.head_lr, "classes": self.dataset.classes, "epochs": len(training.history), "kept_epoch": kept,
            "head_init": choices.head_init, "batchnorm": choices.batchnorm, "probe": baseline or None,
            **({"tried": self.shared.tried} if self.shared.tried else {}),
            **({} if mixed is None else {"mix": wise_ft.summary(mixed)}),
            **({"averaged": training.averaged_epochs} if self.spec.keep == "average" else {}),
            **figures(found, answers, temperature, splits, self.dataset.classes),
            "timing": {"seconds": sum(line["timing"]["seconds"] for line in training.history), "wall_seconds": time.perf_counter() - self.began, "finished": datetime.now().isoformat(" ", "minutes")},
        }  # fmt: skip
        tuner = training.tuner
        result["cautions"] = [
            *self.dataset.cautions,
            *(text for one in tuner.methods if (text := one.summary(tuner.epochs))),
            *cautions(result),
        ]
        for text in result["cautions"] if not self.shared.trial else ():
            tell_caution(self.listener, text)
        self._draw(training, splits, result)
        RESULT.write(self.folder / "result.json", result)
        if not self.shared.trial:
            tell_ended(self.listener, result)
        if not (self.keep_checkpoints or self.shared.trial):  # The best trial is gone on from.
            remove_states(self.folder / "checkpoints")

    def _draw(self, training: "Training", splits: "dict[str, Samples]", result: dict[str, Any]) -> None:
        """Write the page, and before it its pictures. Importing what draws takes about as long as drawing, so it waits until it is needed."""
        from rekindle.report.run_page import write_report

        if self._draws:
            from rekindle.report.run_pictures import Finished, write_pictures

            self._write_samples(splits["train"])  # Of a run that goes on from a trial's end.
            write_pictures(Finished(self.folder, training.history, result, self.dataset.find), self.listener.progress)
        write_report(self.folder, result)

    @property
    def _draws(self) -> bool:
        return self.draws and not self.shared.trial

    def _evaluated(self, training: "Training", splits: "dict[str, Samples]", name: str) -> dict[str, Tensor]:
        """{split: logits of it}, or nothing where there is no such split.

        Raises:
            Diverged: If they are not finite.
        """
        if name not in splits:
            return {}
        from rekindle.training.trainer import evaluate

        logits = evaluate(self.fabric, training.model, splits[name], partial(self.listener.progress, f"measuring {split_title(name)}"))
        training.check(f"the {split_title(name)} loss", mean_nll(logits.softmax(1), splits[name].labels), training.kept_epoch)
        return {name: logits}

    def _temperature(self, found: dict[str, Tensor], splits: "dict[str, Samples]") -> float:
        """That of the validation split; 1 without one, and under the defaults of 0.1, which had none."""
        if "val" not in found or self.spec.defaults == "0.1":
            return 1.0
        return fit_temperature(found["val"], splits["val"].labels)

    def _probe_is_better(self, choices: Choices, training: "Training", splits: "dict[str, Samples]", found: dict[str, Tensor]) -> bool:
        """With `keep="auto"`: whether the linear probe that training began with is right on `LEAD` more validation pictures, or more than that."""
        if self.spec.keep != "auto" or choices.head_init != "linear_probe" or choices.probe is None or "val" not in found:
            return False
        if self.spec.fold:  # The better of two on the pictures that the fold is measured on would flatter it.
            return False
        labels = splits["val"].labels
        answers = self._probe_answers(choices.probe, training.tuner.source.model, splits, "val")
        if answers is None:
            return False
        right = [int((answer.argmax(1) == labels).sum()) for answer in (answers, found["val"])]
        if right[0] - right[1] < LEAD:
            return False
        shares = [100 * count / len(labels) for count in right]
        self.listener.note(
            f"the linear probe is kept: it is right on {shares[0]:.1f} % of the validation pictures, and after fine-tuning it is {shares[1]:.1f} %."
        )
        return True

    def _mixed(self, choices: Choices, training: "Training", splits: "dict[str, Samples]") -> "wise_ft.Mixture | None":
        """With `keep="mix"`: leave the best mixture of the linear probe that training began with and of its end in the network."""
        if self.spec.keep != "mix":
            return None
        if choices.head_init != "linear_probe" or choices.probe is None:
            self.listener.note(
                "--keep mix keeps the last weights: the head is not one linear layer on the features, and began with no linear probe."
            )
            return None
        model, train, spec, device = training.model, splits["train"], self.spec, self.fabric.device
        merge_(model)  # The weights are mixed, not the factors of what was added to them.
        self._merged = True
        end = {name: value.clone() for name, value in model.state_dict().items()}
        back_to_probe(training.tuner, choices.probe, self._own)
        start = {name: value.clone() for name, value in model.state_dict().items()}

        def batches() -> Iterator[Tensor]:
            return (x.to(memory_format=torch.channels_last) for x in first_views(train, spec.batch_size, spec.seed, device))

        # The best on the pictures that a fold is measured on would flatter it.
        blind = spec.fold is not None or "val" not in splits
        measure = None if blind else lambda: self._evaluated(training, splits, "val")["val"]
        labels = train.labels if blind else splits["val"].labels
        found = wise_ft.mix_(model, start, end, batches, measure, labels)
        if measure is None and "val" in splits:
            found = replace(found, logits=self._evaluated(training, splits, "val")["val"])
        self.listener.note(
            f"the weights kept are {100 * found.share:.0f} % of the last epoch's and {100 * (1 - found.share):.0f} % of those that training began with."
        )
        return found

    def _recipe(self, tuner: Tuner) -> dict[str, Any]:
        return {
            "model": self.spec.model, "head": self.spec.head or "", "head_type": self._head_type, "head_modules": list(tuner.net.head),
            "method": self.spec.method, "source_classes": models.width_of_classifier(tuner.source.model), **({"merged": True} if self._merged else {}),
            "classes": self.dataset.classes, **self.preprocessing.recipe(),
        }  # fmt: skip


class _MetricsWriter(Relay):
    """Writes each epoch's line to metrics.jsonl and passes everything on."""

    def __init__(self, listener: "Listener", folder: Path, writes: bool, begun: Callable[[], None], work: Workload) -> None:
        super().__init__(listener)
        self._begun, self._work = begun, work
        self._path = folder / "metrics.jsonl" if writes else None

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float, accuracy: float, rate: float, left: float) -> None:
        """Let what is left be all of the run, where the trainer knows of training alone."""
        super().step(epoch, epochs, step, steps, loss, accuracy, rate, left + self._work.beside_training(epochs - epoch, 1 / rate))

    def epoch(self, record: dict[str, Any]) -> None:
        """Append one line."""
        if self._path is not None:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(METRICS.line(record))
            if record["epoch"] == 0:
                self._begun()
        super().epoch(record)


def _augment(spec: RunSpec) -> "Augment | None":
    """What a spec asks for; nothing yet where it is left open."""
    return parse_augment("none" if spec.augment in (None, AUTO) else spec.augment)


def _import_ahead(*names: str) -> None:
    """Import what is needed next, while the network looks at pictures."""

    def imports() -> None:
        # A program whose run is finished already ends meanwhile and lets nothing be imported; who needs it imports it again.
        with suppress(Exception):
            for name in names:
                importlib.import_module(name)

    threading.Thread(target=imports, daemon=True).start()


def rewrite_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Let metrics.jsonl hold just the epochs of the checkpoint that a run goes on from."""
    write_atomic(folder / "metrics.jsonl", "".join(map(METRICS.line, history)))


def _is_finished(folder: Path, note: Callable[[str], None]) -> bool:
    """Whether a run has a result; one that is damaged counts as none, since the checkpoints give it again.

    Raises:
        Later: If a later rekindle wrote it.
    """
    if not (folder / "result.json").exists():
        return False
    try:
        read_result(folder)
    except Later:
        raise
    except Unreadable as error:
        note(f"{str(error).partition('; ')[0]}; it is written again.")
        return False
    return True
