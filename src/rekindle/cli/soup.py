"""The command `rekindle soup`."""

import argparse
import json
from typing import Any

from rekindle.cli.output import add_command, add_json
from rekindle.cli.run_names import HELP, RUNS, find_run
from rekindle.report.format import split_title
from rekindle.training.progress import ProgressBar

OK = 0


def register(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "soup", "average the weights of finished runs into one network", "rekindle soup runs/photos-a runs/photos-b",
                          "Runs must share network, classes, source weights and the pictures of each split.")  # fmt: skip
    command.add_argument("runs", nargs="+", help=f"{HELP}, each")
    command.add_argument("--kind", choices=("greedy", "uniform"), default="greedy",
                         help="greedy: the runs that do not make validation worse, best first; uniform: all of them (default: greedy)")  # fmt: skip
    command.add_argument("--out", default=RUNS, help=f"folder in which the soup's own folder is made (default: {RUNS})")
    command.add_argument("--name", help="name of the soup's folder (default: made of data, model and id)")
    add_json(command, "JSON instead of sentences")
    command.set_defaults(act=_soup)


def _soup(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        from rekindle.fitting.soup import soup  # Under the bar, since torch takes seconds to load.

        made = soup([find_run(run) for run in options.runs], options.kind, out=options.out, name=options.name, listener=bar)
    said = made.result["soup"]
    accuracies = {name: made.result[name]["accuracy"] for name in ("val", "test") if name in made.result}
    if options.json:
        print(json.dumps({"folder": str(made.folder), **said, **accuracies}))
        return OK
    told = [f"{split_title(name)} accuracy {100 * accuracy:.1f} %" for name, accuracy in accuracies.items()]
    print(f"{', '.join(told)}, of the mean of {' and '.join(said['taken'])}.")
    print(f"It lies in {made.folder}.")
    return OK
