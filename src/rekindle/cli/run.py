"""The commands on finished runs: evaluate, compare, report."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from rekindle.cli.output import add_command, add_json, add_tta, console, show, table
from rekindle.cli.run_names import HELP, find_run
from rekindle.errors import number_of
from rekindle.training.progress import ProgressBar

OK = 0


def register(commands: Any) -> None:
    """Add the commands."""
    evaluate = add_command(
        commands, "evaluate", "measure a finished run on other labelled pictures", "rekindle evaluate runs/photos-… more-photos/"
    )
    evaluate.add_argument("run", help=HELP)
    evaluate.add_argument(
        "data", nargs="?",
        help="FOLDER/CLASS/picture.jpg, or anything else that fit takes, whose test split is then measured (default: the run's own test split)",
    )  # fmt: skip
    add_tta(evaluate)
    add_json(evaluate, "JSON instead of a table")
    evaluate.set_defaults(act=_evaluate)
    compare = add_command(commands, "compare", "rank finished runs by accuracy, with paired statistics", "rekindle compare runs/")
    compare.add_argument("runs", nargs="+", help=f"{HELP}, each; or a folder that holds runs")
    compare.add_argument("--html", metavar="FILE", help="also write a page with the learning curves of all runs")
    add_json(compare, "JSON instead of tables")
    compare.set_defaults(act=_compare)
    report = add_command(
        commands, "report", "draw a finished run's page again, also with heat maps", "rekindle report runs/photos-… --explain"
    )
    report.add_argument("run", help=HELP)
    report.add_argument(
        "--explain", action="store_true", help="add heat maps of where the network looked (pip install 'rekindle[explain]')"
    )
    report.set_defaults(act=_report)


def _evaluate(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        from rekindle.run import Run  # Under the bar, since torch takes seconds to load.

        figures = Run(find_run(options.run)).evaluate(options.data, tta=options.tta, progress=partial(bar.progress, "measuring"))
    if options.json:
        print(json.dumps(figures))
        return OK
    print(
        f"accuracy {100 * figures['accuracy']:.1f} % of {number_of(figures['count'], 'picture')}, calibration error {figures['calibration_error']:.3f}"
    )
    rows = [
        [row["name"], f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", str(row["support"])]
        for row in figures["per_class"]
    ]
    table(["class", "precision", "recall", "F1", "pictures"], rows)
    return OK


def _compare(options: argparse.Namespace) -> int:
    with ProgressBar():
        from rekindle.report.compare import compare
        from rekindle.report.compare_page import write_comparison
        from rekindle.report.compare_tables import to_rich

        found = compare([find_run(run) for run in options.runs])
        if options.html:
            write_comparison(Path(options.html), found)
    if options.json:
        print(json.dumps(found.to_dict()))
        return OK
    show(to_rich(found, console().width))
    if options.html:
        print(f"page: {options.html}")
    return OK


def _report(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        from rekindle.report.redraw import redraw

        page = redraw(find_run(options.run), explain=options.explain, note=bar.note)
    print(page)
    return OK
