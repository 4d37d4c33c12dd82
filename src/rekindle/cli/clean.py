"""The command `rekindle data clean`."""

import argparse
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.cli.output import add_columns, add_command, add_json, asked_columns, table
from rekindle.cli.run_names import find_run
from rekindle.errors import number_of
from rekindle.spec import RunSpec
from rekindle.training.progress import ProgressBar

if TYPE_CHECKING:
    from rekindle.analysis.cleaning import Cleaning

OK = 0
LISTED = 10


def add_clean(parts: Any) -> None:
    """Add the command to its group."""
    text = "find labels that look wrong, outliers and near duplicates, with the features of a pre-trained network"
    more = "Nothing is changed: clean.csv names what to leave out or to mend, and clean.html shows it."
    command = add_command(parts, "clean", text, "rekindle data clean photos/;  rekindle fit photos/ --exclude clean/clean.csv", more)
    command.add_argument("data", help="what rekindle fit takes: a folder, a table, a Hugging Face dataset, a prepared task")
    for name, words in (("model", "a network as for fit"), ("weights", "as for fit")):
        command.add_argument(f"--{name}", default=getattr(RunSpec, name), help=f"{words} (default: {getattr(RunSpec, name)})")
    command.add_argument(
        "--predictions", metavar="FOLDS",
        help="folder of a cross-validation on these data (fit --folds), whose fine-tuned networks judge the labels of pictures that they "
        "have not seen (default: linear probes do so)",
    )  # fmt: skip
    command.add_argument("--image-size", type=int, help="edge of the crop in pixels (default: what the weights were trained on)")
    add_columns(command)
    for name, metavar in (("group-column", "NAME"), ("group-pattern", "TEXT")):
        command.add_argument(
            f"--{name}",
            default="none",
            metavar=metavar,
            help="as for fit: no probe judges a picture of a group that it has seen (default: none)",
        )
    command.add_argument("--out", default="clean", metavar="FOLDER", help="folder for clean.html and clean.csv (default: clean)")
    add_json(command)
    command.set_defaults(act=_clean)


def _clean(options: argparse.Namespace) -> int:
    from rekindle.data.formats.columns import ColumnNames
    from rekindle.fitting.cleaning import clean
    from rekindle.report.clean_page import write_cleaning

    spec = RunSpec(options.data, group_column=options.group_column, group_pattern=options.group_pattern)
    with ProgressBar() as bar:
        found = clean(
            options.data, predictions=options.predictions and find_run(options.predictions), model=options.model, weights=options.weights, image_size=options.image_size,
            columns=replace(ColumnNames(*asked_columns(options)), group=spec.group_column or ""), group_pattern=spec.group_pattern, listener=bar,
        )  # fmt: skip
    page, file = write_cleaning(Path(options.out), found)
    if options.json:
        print(json.dumps(found.to_dict()))
        return OK
    _print(found, page, file)
    return OK


def _print(found: "Cleaning", page: Path, file: Path) -> None:
    labels, outliers, duplicates = found.of("label"), found.of("outlier"), found.of("duplicate")
    if labels:
        rows = [[issue.path, issue.label, issue.suggestion, f"{issue.score:.2f}"] for issue in labels[:LISTED]]
        table(["picture", "labelled", "looks like", "probability"], rows, names={"labelled", "looks like"})
    print(
        f"{number_of(sum(found.counts.values()), 'picture')} by {found.model}: {number_of(len(labels), 'label', 'looks')} wrong"
        f"{f' (by the networks of {found.judges})' if found.judges else ''}, {number_of(len(outliers), 'outlier')}, {number_of(len(duplicates), 'near duplicate')}."
    )
    if found.unjudged:
        print(f"Not judged, for want of a second picture: {', '.join(found.unjudged)}.")
    print(f"page: {page}\nnames: {file}")
    if found.issues:
        print(
            "Delete from it the lines of pictures that are right, then leave the rest out of training: "
            f"rekindle fit {shlex.quote(found.data)} --exclude {shlex.quote(str(file))}"
        )
