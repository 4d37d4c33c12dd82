"""The command that classifies new pictures."""

import argparse
import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.cli.output import add_command, add_json, add_tta, table
from rekindle.cli.run_names import HELP, find_run
from rekindle.errors import agree, number_of
from rekindle.files import csv_text, write_atomic
from rekindle.training.progress import ProgressBar

if TYPE_CHECKING:
    from rekindle.run import Prediction, Run

OK = 0


def register(commands: Any) -> None:
    """Add the command."""
    predict = add_command(
        commands, "predict", "classify new pictures with a finished run", "rekindle predict runs/photos-… new/ --top-k 3 --unsure --html sheet.html",
        "A terminal gets a table, a pipe or a file CSV.",
    )  # fmt: skip
    predict.add_argument("run", help=HELP)
    predict.add_argument("files", nargs="+", help="picture files, or folders of them")
    predict.add_argument("--top-k", type=int, default=1, help="classes a picture (default: 1)")
    predict.add_argument("--unsure", nargs="?", type=_share, const=True, default=False, metavar="SHARE",
                         help="also say which pictures look like none of the classes or are too close to call, at the price of this share of the "
                              "pictures of the classes (default: 0.05)")  # fmt: skip
    add_tta(predict)
    predict.add_argument("--html", metavar="FILE", help="also write a page of thumbnails with their classes")
    predict.add_argument("--sort", choices=("class", "confidence"), default="class",
                         help="order of that page: by class, or the least confident first (default: class)")  # fmt: skip
    predict.add_argument("--out", help="write here instead of to the terminal")
    add_json(predict, "JSON instead of CSV")
    predict.set_defaults(act=_predict)


def _share(text: str) -> float:
    """What follows `--unsure`, where something does."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a share such as 0.05, found {text!r}; put --unsure behind the pictures") from None


def _predict(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        from rekindle.data.formats.folder_walk import find_new  # Under the bar, since torch takes seconds to load.
        from rekindle.data.formats.names import printable
        from rekindle.run import Run

        run, new = Run(find_run(options.run)), find_new(options.files)
        told = partial(bar.progress, "classifying pictures")
        rows = run.predict(new.paths, options.top_k, unsure=options.unsure, tta=options.tta, progress=told)
    if options.html:
        from rekindle.report.contact_sheet import write_contact_sheet

        write_contact_sheet(Path(options.html), run.folder.resolve().name, rows, options.sort)
    found = [dataclasses.replace(row, path=printable(row.path)) for row in rows]
    if options.out or options.json or not sys.stdout.isatty():
        _write(_json(found) if options.json else _csv(found, options.top_k, options.unsure is not False), options.out)
    else:
        _table(found, options.unsure is not False)
    for sentence in [*new.told(), *_few(run, options.unsure)]:
        print(f"rekindle: {sentence}", file=sys.stderr)
    for what, place in (("answers", options.out), ("page", options.html)):  # In a pipe standard output holds the table alone.
        if place:
            print(f"{what}: {place}", file=sys.stderr)
    broken = sum(bool(row.error) for row in found)
    if broken:
        print(
            f"rekindle: {broken} of {number_of(len(found), 'file')} could not be classified; the reason stands beside {agree(broken, 'it')}.",
            file=sys.stderr,
        )
    return OK if broken < len(found) else 1


def _write(text: str, out: str | None) -> None:
    if out:
        write_atomic(Path(out), text)
    else:
        sys.stdout.write(text)


def _json(found: "list[Prediction]") -> str:
    return json.dumps([dataclasses.asdict(row) for row in found], indent=2, ensure_ascii=False) + "\n"


def _csv(found: "list[Prediction]", top_k: int, asked: bool) -> str:
    rows = []
    for row in found:
        cells = [cell for pair in zip(row.classes, row.confidences, strict=True) for cell in pair]
        doubt = ["" if row.unsure is None else int(row.unsure)] if asked else []
        rows.append([row.path, *cells, *[""] * (2 * top_k - len(cells)), *doubt, row.error])
    places = [f"{kind}_{place}" for place in range(1, top_k + 1) for kind in ("class", "confidence")]
    return csv_text(["path", *places, *(["unsure"] if asked else []), "error"], rows)


def _table(found: "list[Prediction]", asked: bool) -> None:
    rows, folder = [], _common_folder([row.path for row in found])
    for row in found:
        answers = ", ".join(f"{name} {100 * share:.1f} %" for name, share in zip(row.classes, row.confidences, strict=True))
        rows.append([row.path.removeprefix(folder), row.error or answers, *(["unsure" if row.unsure else ""] if asked else [])])
    title = "class and confidence"
    table([f"picture in {folder}" if folder else "picture", title, *([""] if asked else [])], rows, words={title})
    if asked:
        print(f"{sum(bool(row.unsure) for row in found)} of {len(found)} unsure.")


def _common_folder(paths: list[str]) -> str:
    """The folder, with its separator, that all of several paths lie in; "" where they share none, or there is but one."""
    if len(paths) < 2:
        return ""
    shared = os.path.commonprefix([os.path.dirname(path) + os.sep for path in paths])
    return shared[: shared.rfind(os.sep) + 1]


def _few(run: "Run", unsure: bool | float) -> list[str]:
    """What to know of a threshold that few validation pictures set."""
    from rekindle.run import unsure_share

    if unsure is False:
        return []
    share, expected = unsure_share(unsure), run.familiarity.expected(unsure_share(unsure))
    if expected <= share:
        return []
    count = len(run.familiarity.own)
    told = f"only {number_of(count, 'validation picture', 'sets')} the threshold, so about {100 * expected:.0f} % of the pictures of the classes will be unsure"
    return [f"{told} instead of {100 * share:g} %."]
