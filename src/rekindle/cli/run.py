"""The commands on finished runs: evaluate, compare."""

import argparse
import json
from functools import partial
from typing import Any

from rekindle.cli.output import add_command, add_json, add_tta, show, table
from rekindle.cli.run_names import HELP, find_run
from rekindle.training.progress import ProgressBar

OK = 0


def register(commands: Any) -> None:
    """Add both commands."""
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
    compare = add_command(commands, "compare", "put finished runs side by side, with paired statistics", "rekindle compare runs/a runs/b")
    compare.add_argument("runs", nargs="+", help=f"{HELP}, each")
    add_json(compare, "JSON instead of tables")
    compare.set_defaults(act=_compare)


def _evaluate(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        from rekindle.run import Run  # Under the bar, since torch takes seconds to load.

        figures = Run(find_run(options.run)).evaluate(options.data, tta=options.tta, progress=partial(bar.progress, "measuring"))
    if options.json:
        print(json.dumps(figures))
        return OK
    print(
        f"accuracy {100 * figures['accuracy']:.1f} % of {figures['count']} pictures, calibration error {figures['calibration_error']:.3f}"
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

        found = compare([find_run(run) for run in options.runs])
    if options.json:
        print(json.dumps(found.to_dict()))
        return OK
    show(found.to_rich())
    return OK
