"""Choose how many stages to freeze on the validation split; the test split is read once, by the run that is chosen."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rekindle import models
from rekindle.errors import Diverged, UserError, number_of
from rekindle.fitting.job import execute
from rekindle.fitting.searching import Search, check_validation, remove_checkpoints
from rekindle.fitting.shared import Shared
from rekindle.method import Method
from rekindle.run import Run
from rekindle.spec import AUTO, RunSpec
from rekindle.stored import FileFormat
from rekindle.training.listener import Listener, Silent

SEARCH = FileFormat(2, dict[str, Any])


@dataclass(frozen=True)
class FrozenStages:
    """One number of frozen stages.

    Attributes:
        frozen: How many stages, counted from the input.
        until: The last of them; "" for none.
        trainable: Parameters left to train.
        accuracies: Validation accuracy of each seed.
    """

    frozen: int
    until: str
    trainable: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean validation accuracy over the seeds."""
        return sum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True)
class FreezeSearch:
    """What `search_freeze` found.

    Attributes:
        curve: Every candidate, from no stage frozen to all.
        chosen: The best mean validation accuracy; of equals the one that trains least.
        run: The run with the chosen number of stages, which has read the test split.
        folder: Holds curve.png, search.json and the candidates' run folders.
    """

    curve: tuple[FrozenStages, ...]
    chosen: FrozenStages
    run: Run
    folder: Path


def search_freeze(
    spec: RunSpec,
    *,
    seeds: int = 1,
    out: str | Path = "runs",
    listener: Listener | None = None,
    cache: bool = True,
    workers: int | None = None,
    device: str = "auto",
    methods: Sequence[Method] | None = None,
    name: str | None = None,
    keep_checkpoints: bool = False,
    draws: bool = True,
) -> FreezeSearch:
    """Layer-wise search: train with the first 0, 1, 2, ... stages frozen and keep what validates best.

    Shermin et al., arXiv 1903.10150, choose the frozen layers so. Every candidate has the same budget and the same data; none
    reads the test split. Candidates that were finished before are not trained again.

    Args:
        spec: A run; its `freeze` is not looked at.
        seeds: Seeds a candidate, counted up from the spec's, at least 1.
        out: Where run folders go; the search has a folder of its own among them.
        listener: Told of progress; see `rekindle.training.listener.Listener`.
        cache: As for `rekindle.fit`.
        workers: As for `rekindle.fit`.
        device: As for `rekindle.fit`.
        methods: The spec's methods as objects; None makes them from its recipe.
        name: Of the folder of the run that is kept.
        keep_checkpoints: Keep them when all is done.
        draws: As for `execute`, of the run that is kept.

    Raises:
        UserError: For bad input, as `rekindle.fit`.
        Diverged: If every candidate does; else those that do are out.
    """
    if seeds < 1:
        raise UserError(f"seeds must be at least 1, found {seeds}.")
    listener = listener or Silent()
    train = partial(execute, listener=listener, cache=cache, workers=workers, device=device, methods=methods, draws=draws)
    check_validation(replace(spec, freeze=AUTO))
    blocks, shared = stages_of(spec), {seed: Shared(trial=True) for seed in range(spec.seed, spec.seed + seeds)}
    search = Search("freeze", spec, Path(out), length=(len(blocks) + 1) * seeds)
    folder, curve, trials, diverged = search.folder, [], {}, None
    for frozen in range(len(blocks) + 1):
        until = list(blocks)[frozen - 1] if frozen else ""
        listener.note(f"freeze search, {frozen} of {number_of(len(blocks), 'stage')}" + (f" (up to {until})" if until else "") + ":")
        try:
            runs = [train(search.trial(freeze=until or None, seed=seed), out=folder, shared=same) for seed, same in shared.items()]
        except Diverged as error:
            listener.note(f"freeze search: {number_of(frozen, 'frozen stage', 'is')} out: {error}")
            diverged = error
            continue
        accuracies = tuple(float(run.result["val"]["accuracy"]) for run in runs)
        curve.append(FrozenStages(frozen, until, sum(list(blocks.values())[frozen:]), accuracies))
        trials[until] = [run.folder for run in runs]
    if not curve and diverged is not None:
        raise diverged
    chosen = choose(curve)
    _write(folder, curve, chosen)
    listener.note(
        f"chosen: {chosen.frozen} of {number_of(len(blocks), 'stage')} frozen, validation accuracy {100 * chosen.mean:.1f} %; {folder / 'curve.png'}"
    )
    final, first = search.final(freeze=chosen.until or None), search.go_on(shared[spec.seed], trials[chosen.until][0])
    run = train(final, out=Path(out), name=name, keep_checkpoints=keep_checkpoints, shared=first)
    if not keep_checkpoints:
        remove_checkpoints(itertools.chain.from_iterable(trials.values()))
    return FreezeSearch(tuple(curve), chosen, run, folder)


def choose(curve: list[FrozenStages]) -> FrozenStages:
    """The best mean validation accuracy; of equals the one with the fewest trainable parameters."""
    return max(curve, key=lambda candidate: (candidate.mean, -candidate.trainable))


def stages_of(spec: RunSpec) -> dict[str, int]:
    """Stages of the network by name, from the input, with their numbers of parameters.

    Returns:
        Counts of parameters by stage.
    """
    module = models.build(spec.model, weights="none").module
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    head = models.find_classifier(module, spec.head)
    blocks = {stage: sum(sizes[name] for name in names) for stage, names in models.stages(module, head).items()}
    if "source_classifier" in spec.method:
        blocks["source_classifier"] = sum(size for name, size in sizes.items() if name.startswith(tuple(f"{part}." for part in head)))
    return blocks


def _write(folder: Path, curve: list[FrozenStages], chosen: FrozenStages) -> None:
    from rekindle.report.figures import freeze_curve, save

    rows = [{**dataclasses.asdict(candidate), "mean": candidate.mean} for candidate in curve]
    SEARCH.write(folder / "search.json", {"chosen": chosen.until, "frozen": chosen.frozen, "curve": rows})
    save(
        freeze_curve([(candidate.until or "none", list(candidate.accuracies)) for candidate in curve], curve.index(chosen)),
        folder / "curve.png",
    )
