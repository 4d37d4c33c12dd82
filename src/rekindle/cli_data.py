"""The command group `rekindle data`: one small function registers each subcommand, another acts."""

import argparse
import json
from collections.abc import Callable
from typing import Any

OK = 0


def register(commands: Any) -> None:
    """Add `data` and its subcommands to the command."""
    group = commands.add_parser("data", help="prepare, list and check data", description="Prepare, list and check data.",
                                epilog="example: rekindle data prepare flowers102")  # fmt: skip
    parts = group.add_subparsers(title="data commands", required=True, metavar="COMMAND")
    for add in SUBCOMMANDS:
        add(parts)


def _add_list(parts: Any) -> None:
    command = parts.add_parser("list", help="list the benchmark tasks", description="List the benchmark tasks.", epilog="example: rekindle data list")
    _root(command)
    _json(command)
    command.set_defaults(act=_list)


def _list(options: argparse.Namespace) -> int:
    from rekindle.cli import _table
    from rekindle.data.tasks import TASKS
    from rekindle.data.tasks.prepared import is_prepared, place

    found = [
        {"name": name, "title": task.title, "classes": task.classes, "counts": task.counts, "prepared": is_prepared(place(name, options.root))}
        for name, task in TASKS.items()
    ]
    if options.json:
        print(json.dumps(found))
        return OK
    rows = [
        [str(one["name"]), str(one["classes"]), *(str(one["counts"].get(split, "")) for split in ("train", "val", "test")),
         "yes" if one["prepared"] else "no", str(one["title"])]
        for one in found
    ]  # fmt: skip
    _table(["task", "classes", "train", "val", "test", "prepared", "title"], rows)
    return OK


def _root(command: argparse.ArgumentParser) -> None:
    command.add_argument("--root", metavar="FOLDER", help="where data is kept (default: $REKINDLE_HOME, or ~/.cache/rekindle)")


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="JSON instead of text")


SUBCOMMANDS: tuple[Callable[[Any], None], ...] = (_add_list,)
