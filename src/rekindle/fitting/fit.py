"""`rekindle.fit`: fine-tune a network on labelled images. What needs torch is loaded by the call."""

import os
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from rekindle.errors import RekindleWarning, UserError, number_of
from rekindle.files import expand
from rekindle.fitting.folder_names import check_name
from rekindle.records import folds_of, read_environment, read_result, read_spec
from rekindle.spec import AUTO, NONE_WORDS, PLACES, Folds, RunOptions, RunSpec, check_names, check_value
from rekindle.training.listener import Listener
from rekindle.training.trackers import Log, tracking
from rekindle.training.watching import watching

if TYPE_CHECKING:
    from rekindle.fitting.folds import CrossValidation
    from rekindle.method import Direction, Method
    from rekindle.run import Run


@overload
def fit(
    data: str | Path | None = ..., *, folds: None = ..., method: "str | Method | Sequence[Method] | None" = ..., direction: "str | Direction | None" = ...,
    out: str | Path = ..., resume: str | Path | None = ..., listener: Listener | None = ..., cache: bool = ..., workers: int | None = ...,
    device: str = ..., name: str | None = ..., keep_checkpoints: bool = ..., log: Log | None = ..., **options: Unpack[RunOptions],
) -> "Run": ...  # fmt: skip


@overload
def fit(
    data: str | Path | None = ..., *, folds: int, method: "str | Method | Sequence[Method] | None" = ..., direction: "str | Direction | None" = ...,
    out: str | Path = ..., resume: str | Path | None = ..., listener: Listener | None = ..., cache: bool = ..., workers: int | None = ...,
    device: str = ..., name: str | None = ..., keep_checkpoints: bool = ..., log: Log | None = ..., **options: Unpack[RunOptions],
) -> "CrossValidation": ...  # fmt: skip


def fit(
    data: str | Path | None = None, *, folds: int | None = None, method: "str | Method | Sequence[Method] | None" = None,
    direction: "str | Direction | None" = None, out: str | Path = "runs", resume: str | Path | None = None, listener: Listener | None = None,
    cache: bool = True, workers: int | None = None, device: str = "auto", name: str | None = None, keep_checkpoints: bool = False,
    log: Log | None = None, **options: Unpack[RunOptions],
) -> "Run | CrossValidation":  # fmt: skip
    """Fine-tune a network on a folder of photographs and return the finished run.

    Args:
        data: A folder, a table, a Hugging Face dataset or a prepared task; see `rekindle.data.open_data`.
        folds: Cross-validate: train so many runs, each of which holds out another part of the training and validation pictures.
        method: A recipe such as "l2_sp(alpha=0.01)+rifle(periods=2)", or methods, also of classes of your own: `[Rifle(periods=4)]`.
            By default that of `RunSpec`.
        direction: As text such as "grod(rho=0.99)", or a direction. By default the plain sum.
        out: Folder in which the run's own folder is made.
        resume: A run folder, or that of folds, to continue instead; all settings come from its spec.yaml. Data or weights that were moved since may be given
            again; their content must be the same. What no result depends on may change, as `workers`, `cache` and `device`; any
            other setting, also more epochs, would make another run, since learning rates follow its length.
        listener: Called with progress; see `rekindle.training.listener.Listener`. By default a bar on a terminal or in a notebook, and
            cautions as `RekindleWarning`; the logger "rekindle" hears all that is said in any case.
        cache: Keep decoded pictures for later runs; see `rekindle.data.cache.cache`. No result depends on it.
        workers: Threads that prepare the next batches meanwhile; None chooses. No result depends on it.
        device: Where to train: "auto", "cpu", "cuda" or "mps".
        name: Of the run's folder; None makes one of data, model, method, seed and id.
        keep_checkpoints: Keep them when the run is done, where nothing reads them any more.
        log: A tracker that figures go to beside metrics.jsonl; see `rekindle.training.trackers`.
        **options: Fields of `RunSpec`, such as `epochs=40`.

    Returns:
        The run; one that was finished before is returned as it is. Of folds, all of them, with their mean in `result`.

    Raises:
        UserError: For bad input, in one sentence.

    Examples:
        >>> run = rekindle.fit("photos/", method=[L2SP(alpha=0.01), Rifle(periods=2)])  # doctest: +SKIP
        >>> run.predict(["new.jpg"])  # doctest: +SKIP
    """
    check_names(options)
    if name is not None:
        check_name(name)
    methods = _objects(method)
    given: dict[str, Any] = {**options}
    if method is not None:
        given["method"] = method if isinstance(method, str) else _joined(methods or [])
    if direction is not None:
        given["direction"] = direction if isinstance(direction, str) else _term(direction)
    if resume is not None:
        if name is not None:
            raise UserError(
                f"--name {name} is for a new run, and --resume {resume} goes on with one that has its name; leave one of them out."
            )
        folder = expand(resume)
        out, spec = folder.parent, _resumed(folder, given if data is None else {**given, "data": str(data)})
    elif data is None:
        raise UserError("name the folder with photographs, or a table of them: rekindle fit photos/")
    else:
        folder, out, spec = None, expand(out), RunSpec(data=str(data), **given)
    begun = None if folder is None else folds_of(folder)
    if folds is not None and folder is not None and folds != begun:
        raise UserError(
            f"{folder} has {number_of(begun, 'fold') if begun else 'no folds'}, so it cannot go on with --folds {folds}; leave that out."
        )
    check_value("--folds", folds, Folds | None)
    check_value("--log", log, Log | None)
    common: dict[str, Any] = {"cache": cache, "workers": workers, "device": device, "keep_checkpoints": keep_checkpoints}
    with watching(listener) as watcher, tracking(watcher, log) as common["listener"]:
        _tell_own(methods or [], watcher)
        count = begun or folds
        run: Run | CrossValidation
        if count is None:
            run = _run(spec, methods, Path(out), folder, name=name, **common)
        else:
            from rekindle.fitting.folds import cross_validate

            train = partial(_fold, methods, common)
            run = cross_validate(spec, count, train, out=Path(out), name=name, resumed=folder, listener=watcher)
    for text in watcher.cautions:
        warnings.warn(text, RekindleWarning, stacklevel=2)
    return run


def fit_undrawn(spec: RunSpec, out: Path, listener: Listener) -> "Run":
    """Train one of many runs, as of a study, or find it finished: the pictures of its page are drawn when somebody asks, by `rekindle report`;
    `predict --unsure` asks for a run of its own.

    Returns:
        The finished run.
    """
    with watching(listener) as watcher:
        common: dict[str, Any] = {"cache": True, "workers": None, "device": "auto", "keep_checkpoints": False}
        return _run(spec, None, out, None, name=None, listener=watcher, draws=False, **common)


def _run(spec: RunSpec, methods: "list[Method] | None", out: Path, resumed: Path | None, **common: Any) -> "Run":
    """Train as the spec says, with its searches; `common` is what they and a single run take alike."""
    from rekindle.data import open_data
    from rekindle.fitting.freeze_search import search_freeze
    from rekindle.fitting.job import execute
    from rekindle.fitting.method_search import search_method
    from rekindle.fitting.model_choice import with_model
    from rekindle.fitting.searching import check_validation

    # Under "auto" what is wrong with the data is said before a word of networks.
    dataset = open_data(spec.data, **spec.data_options()) if spec.model == AUTO else None
    check_validation(spec, dataset)
    spec = with_model(spec, dataset=dataset, **{name: common[name] for name in ("listener", "cache", "device")})
    if spec.method == AUTO:
        return search_method(spec, out=out, **common)
    if spec.freeze == AUTO:
        return search_freeze(spec, out=out, methods=methods, **common).run
    return execute(spec, out=out, resumed=resumed, methods=methods, dataset=dataset, **common)


def _fold(methods: "list[Method] | None", common: dict[str, Any], spec: RunSpec, out: Path, resumed: Path | None) -> "Run":
    """Train one of several folds, or go on with it; what it chose by itself stands in its folder."""
    if resumed is not None:
        spec = replace(read_spec(resumed), **{name: getattr(spec, name) for name in PLACES})
    return _run(spec, methods, out, resumed, name=None, **common)


def _tell_own(chosen: "Sequence[Method]", listener: Listener) -> None:
    """Say what a run of classes that only this program knows cannot do."""
    if not chosen:
        return
    from rekindle.registry import methods as registered

    own = [method.name for method in chosen if method.name not in registered()]
    if own:
        listener.note(
            f"{' and '.join(own)} stands in no package's entry point rekindle.methods: the run goes on from Python alone, where the class is "
            "defined; rekindle fit --resume needs it registered."
        )


def _resumed(folder: Path, given: dict[str, Any]) -> RunSpec:
    """The spec of a run that goes on, with the new places of what was moved.

    Raises:
        UserError: If another setting than the run's is given, or its data or weights are gone.
    """
    kept = read_spec(folder)
    if _is_soup(folder):
        raise UserError(
            f"{folder} is a soup, which has no training to go on with; go on with a run that it was made of, or make another soup."
        )
    _check_options(kept, folder)
    moved: dict[str, Any] = {name: str(value) for name, value in given.items() if name in PLACES}
    spec = replace(kept, **moved)
    other = [name for name, value in given.items() if name not in PLACES and replace(kept, **{name: value}) != kept]
    if other:
        typed = " ".join(_typed(name, given[name]) for name in other)
        raise UserError(
            f"{typed} would make another run than {folder}, and --resume goes on with the same one: leave it out, or start the other run "
            f"with rekindle fit --config {shlex.quote(str(folder / 'spec.yaml'))} {typed}. Only --workers, --device, --cache, and where the "
            "data, --weights, --source-data or --exclude lie now, may change."
        )
    _check_places(spec, folder)
    return spec


def _is_soup(folder: Path) -> bool:
    """Whether a folder holds the mean of runs; a result that is missing or damaged is for the run itself to deal with."""
    try:
        return (folder / "result.json").is_file() and "soup" in read_result(folder)
    except UserError:
        return False


def _typed(name: str, value: Any) -> str:
    """An option as it is typed."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{flag}"
    return f"--{flag} {shlex.quote(str(NONE_WORDS[name] if value is None else value))}"


def _check_options(spec: RunSpec, folder: Path) -> None:
    """Refuse to go on with a run under other options than it began with; early versions kept no note of those."""
    if read_environment(folder).get("options", spec.options_hash()) != spec.options_hash():
        raise UserError(
            f"the options in {folder / 'spec.yaml'} changed since the run began, so it cannot go on; start a new one with them: "
            f"rekindle fit --config {folder / 'spec.yaml'}"
        )


def _check_places(spec: RunSpec, folder: Path) -> None:
    """Refuse to go on with a run whose data or weights are no longer where they were, and say how to name their new place."""
    gone = [name for name in PLACES if os.path.isabs(place := getattr(spec, name) or "") and not Path(place).exists()]
    if gone:
        typed = {"data": "FOLDER", "weights": "--weights FILE", "source_data": "--source-data FOLDER", "exclude": "--exclude FILE"}
        raise UserError(
            f"{' and '.join(getattr(spec, name) for name in gone)} of {folder} cannot be found; put it back, or name its new place: "
            f"rekindle fit {' '.join(typed[name] for name in gone)} --resume {folder}"
        )


def _joined(methods: "list[Method]") -> str:
    """The recipe of methods that were given as objects."""
    from rekindle.registry import unparse

    return unparse(methods)


def _term(direction: Any) -> Any:
    """The text of a direction that was given as an object; anything else is for the spec to refuse."""
    from rekindle.method import Direction
    from rekindle.registry import describe

    return describe(direction) if isinstance(direction, Direction) else direction


def _objects(method: "str | Method | Sequence[Method] | None") -> "list[Method] | None":
    """Methods that were given as objects; None where a recipe was, or nothing."""
    if method is None or isinstance(method, str):
        return None
    from rekindle.method import Method

    methods = [method] if isinstance(method, Method) else list(method)
    wrong = next((one for one in methods if not isinstance(one, Method)), None)
    if wrong is not None:
        raise UserError(f"method takes a recipe, or objects of rekindle.Method, found {wrong!r}; write it like [Rifle(periods=4)].")
    return methods
