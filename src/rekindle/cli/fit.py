"""The command `rekindle fit`: its options are the fields of `RunSpec`."""

import argparse
import dataclasses
import inspect
import json
import os
import re
import sys
import typing
from typing import Any

from rekindle.cli.output import ProgressBar, add_command
from rekindle.errors import Stopped
from rekindle.spec import RunSpec

OK, STOPPED = 0, 130


def register(commands: Any) -> None:
    """Add the command."""
    example = "rekindle fit photos/ --method 'l2_sp+rifle(periods=2)' --epochs 40;  rekindle fit --resume runs/photos-…"
    command = add_command(commands, "fit", "fine-tune a network on a folder of photographs", example)
    texts = option_texts()
    for field in dataclasses.fields(RunSpec):
        kind = typing.get_type_hints(RunSpec)[field.name]
        flag = "--" + field.name.replace("_", "-")
        text = f"{texts[field.name]} (default: {field.default!r})"
        if field.name == "data":
            command.add_argument("data", nargs="?", help=texts["data"])
        elif kind is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            choices = typing.get_args(kind) or None
            command.add_argument(flag, type=str if choices else kind, choices=choices, default=argparse.SUPPRESS, help=text)
    command.add_argument("--out", default="runs", help="folder in which the run's own folder is made (default: runs)")
    command.add_argument("--resume", metavar="RUN", help="continue this run folder; every setting comes from it")
    command.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True,
                         help="keep decoded pictures for later runs; see rekindle data cache (no result depends on it)")  # fmt: skip
    command.add_argument(
        "--workers", type=int, help="threads that prepare the next batches meanwhile (default: chosen; no result depends on it)"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(act=_fit)


def option_texts() -> dict[str, str]:
    """What RunSpec's docstring says of each option; '%' doubled, as argparse wants it."""
    section = inspect.cleandoc(RunSpec.__doc__ or "").split("Args:")[1]  # Python 3.13 takes the indentation away, older ones do not.
    return {name: text.strip().rstrip(".").replace("%", "%%") for name, text in re.findall(r"^ {4}(\w+): (.+)$", section, re.MULTILINE)}


def _fit(options: argparse.Namespace) -> int:
    names = {field.name for field in dataclasses.fields(RunSpec)} - {"data"}
    given = {name: value for name, value in vars(options).items() if name in names}
    from rekindle import fit

    first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with ProgressBar(quiet=not first) as bar:
            run = fit(
                options.data, out=options.out, resume=options.resume, listener=bar, cache=options.cache, workers=options.workers, **given
            )
    except Stopped as error:
        print(f"rekindle: stopped; all is saved. Go on with: rekindle fit --resume {error}", file=sys.stderr)
        return STOPPED
    if not first:
        return OK
    if options.json:
        print(json.dumps({"run": str(run.folder), **run.result}))
        return OK
    from rekindle.report.format import split_title

    for split in ("val", "test"):
        if split in run.result:
            figures = run.result[split]
            print(f"{split_title(split)} accuracy {100 * figures['accuracy']:.1f} % of {figures['count']} pictures")
    print(f"report: {run.folder / 'report.html'}\npredict: rekindle predict {run.folder} FILES")
    return OK
