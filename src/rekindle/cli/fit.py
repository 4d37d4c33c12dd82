"""The command `rekindle fit`: its options are the fields of `RunSpec`."""

import argparse
import json
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from rekindle.cli.output import add_command, add_json, option_texts, table
from rekindle.cli.run_names import RUNS, find_run
from rekindle.errors import Stopped, number_of
from rekindle.report.format import split_title
from rekindle.spec import EMA, NONE_WORDS, RunSpec, hints, read_options
from rekindle.training.progress import ProgressBar
from rekindle.training.trackers import Log

if TYPE_CHECKING:
    from rekindle.fitting.folds import CrossValidation

OK, STOPPED = 0, 130
GROUPS = {
    "data": ("image_column", "label_column", "split_column", "group_column", "group_pattern", "source_data", "exclude", "per_class", "fraction", "val_fraction", "test_fraction", "fold"),
    "model": ("model", "weights", "head", "head_type", "image_size"),
    "method": ("method", "direction", "freeze"),
    "training": ("epochs", "minutes", "patience", "lr", "head_lr", "head_init", "batchnorm", "warmup", "clip_norm", "ema", "optimizer", "penalties", "batch_size", "grad_accum_steps", "flip", "augment", "views", "label_smoothing", "sampler", "class_weights"),
    "evaluation": ("test", "test_every_epoch", "keep", "record"),
    "run": ("precision", "devices", "seed", "defaults"),
}  # fmt: skip
ALONE: dict[str, Any] = {"ema": EMA}  # What an option stands for that is given without a value.


def register(commands: Any) -> None:
    """Add the command."""
    example = "rekindle fit photos/;  rekindle fit photos/ --method auto --minutes 30;  rekindle fit --resume latest"
    command = add_command(commands, "fit", "fine-tune a network on a folder of photographs", example)
    texts = option_texts(RunSpec)
    command.add_argument("data", nargs="?", help=texts["data"])
    groups = {title: command.add_argument_group(title) for title in GROUPS}
    for title, names in GROUPS.items():
        for name in names:
            _add_option(groups[title], name, texts[name])
    groups["data"].add_argument("--folds", type=int, metavar="K",
                                help="cross-validate: train K runs, each of which holds out another part of the training and validation pictures")  # fmt: skip
    run = groups["run"]
    run.add_argument("--out", default=RUNS, help="folder in which the run's own folder is made (default: runs)")
    run.add_argument("--name", help="name of that folder (default: made of data, model, method, seed and id)")
    run.add_argument(
        "--config", metavar="FILE", help="YAML file of options by name, such as a run's spec.yaml; options typed here come before it"
    )
    run.add_argument(
        "--resume",
        metavar="RUN",
        help="continue this run, named by its folder, the beginning of its name or id, or latest; every setting comes from it. --workers, --device and --cache may change, and data that were moved may be "
        "named again; any other change, also of --epochs, since learning rates follow a run's length, makes another run: --config RUN/spec.yaml",
    )
    run.add_argument("--device", default="auto", metavar="NAME", help="where to train: auto, cpu, cuda or mps (default: auto)")
    run.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True,
                     help="keep decoded pictures for later runs; see rekindle data cache (no result depends on it)")  # fmt: skip
    run.add_argument("--keep-checkpoints", action="store_true", help="keep checkpoints when the run is done; nothing reads them then")
    run.add_argument("--log", choices=typing.get_args(Log), help="also send each epoch's figures to a tracker (default: none)")
    run.add_argument("--workers", type=int, help="threads that prepare the next batches meanwhile (default: auto; no result depends on it)")
    add_json(run, "print the result as JSON")
    command.set_defaults(act=_fit)


def _add_option(group: Any, name: str, text: str) -> None:
    hint, default = hints(RunSpec)[name], getattr(RunSpec, name)
    flag, kinds = "--" + name.replace("_", "-"), plain_types(hint)
    text = f"{text} (default: {NONE_WORDS[name] if default is None else default})"
    if kinds == [bool]:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
    elif typing.get_origin(hint) is Literal:
        group.add_argument(flag, choices=typing.get_args(hint), default=argparse.SUPPRESS, help=text)
    else:
        alone: dict[str, Any] = {"nargs": "?", "const": ALONE[name]} if name in ALONE else {}
        read, metavar = _reader(kinds, NONE_WORDS.get(name)), kinds[0].__name__.upper()
        group.add_argument(flag, type=read, default=argparse.SUPPRESS, help=text, metavar=metavar, **alone)


def plain_types(hint: Any) -> list[type]:
    """The types of what a user types: those of the annotation without their bounds, and without None.

    Returns:
        Types such as int and str.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return plain_types(parts[0])
    if origin in (Union, types.UnionType):
        return [kind for part in parts if part is not type(None) for kind in plain_types(part)]
    return [str if origin is Literal else hint]


def _reader(kinds: list[type], word: str | None) -> Callable[[str], Any]:
    """Reads an option's text as the first of the types that takes it; the word in the place of None stays a word, which `RunSpec` knows."""

    def read(text: str) -> Any:
        if text == word:
            return text
        for kind in kinds[:-1]:
            try:
                return kind(text)
            except ValueError:
                continue
        return kinds[-1](text)

    names = [kind.__name__ for kind in kinds if kind is not str or len(kinds) == 1]
    read.__name__ = " or ".join([*names, *([word] if word else [])])  # argparse's message for another text names it.
    return read


def _fit(options: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(options).items() if name in hints(RunSpec) and name != "data"}
    if options.config:
        given = {**read_options(Path(options.config)), **given}
    resume = options.resume and find_run(options.resume, runs=options.out, finished=False)
    data = options.data or given.pop("data", None)
    given.pop("data", None)
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with ProgressBar(quiet=not first) as bar:
            from rekindle import fit  # Under the bar, since torch takes seconds to load.
            from rekindle.fitting.folds import CrossValidation

            run = fit(
                data, folds=options.folds, out=options.out, resume=resume, listener=bar, cache=options.cache, workers=options.workers,
                device=options.device, name=options.name, keep_checkpoints=options.keep_checkpoints, log=options.log, **given,
            )  # fmt: skip
    except Stopped as error:
        print(f"rekindle: stopped; all is saved. Go on with: rekindle fit --resume {error}", file=sys.stderr)
        return STOPPED
    if not first:
        return OK
    if options.json:
        print(json.dumps({"run": str(run.folder), **run.result}))
        return OK
    if isinstance(run, CrossValidation):
        _print_folds(run)
        return OK
    for split in ("val", "test"):
        if split in run.result:
            figures = run.result[split]
            print(f"{split_title(split)} accuracy {100 * figures['accuracy']:.1f} % of {number_of(figures['count'], 'picture')}")
    print(f"report: {run.folder / 'report.html'}\npredict: rekindle predict {run.folder} FILES")
    return OK


def _print_folds(found: "CrossValidation") -> None:
    result = found.result
    splits = [split for split in ("val", "test") if split in result]
    rows = [
        [str(row["fold"]), str(row["count"]), *(f"{100 * row[split]:.1f}" for split in splits), row["run"].rpartition("-")[2]]
        for row in result["runs"]
    ]
    table(["fold", "held out", *(f"{split_title(split)} %" for split in splits), "run id"], rows, names={"run id"})
    for split in splits:
        figures = result[split]
        low, high = figures["interval"] or (figures["mean"], figures["mean"])
        print(f"{split_title(split)} accuracy {100 * figures['mean']:.1f} % on average, 95 % interval {100 * low:.1f} to {100 * high:.1f}")
    pictures = result["pictures"]
    print(f"each of {number_of(pictures['count'], 'picture')} was held out once: {100 * pictures['accuracy']:.1f} % of them are right")
    for sentence in result["cautions"]:
        print(f"caution: {sentence}")
    print(f"predictions: {found.folder / 'predictions.csv'}\nsummary: {found.folder / 'folds.json'}")
