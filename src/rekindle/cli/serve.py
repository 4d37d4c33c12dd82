"""The command `rekindle serve`."""

import argparse
import sys
from contextlib import suppress
from typing import Any

from rekindle.cli.output import add_command
from rekindle.cli.run_names import HELP, find_run

OK = 0


def register(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "serve", "open a page on this machine to drop pictures on", "rekindle serve runs/photos-…",
                          "Ctrl-C ends it. Pictures are classified on this machine and not kept.")  # fmt: skip
    command.add_argument("run", help=HELP)
    command.add_argument("--port", type=int, default=8000, help="0 takes one that is free (default: 8000)")
    command.add_argument("--host", default="127.0.0.1",
                         help="address to listen at; 0.0.0.0 lets everyone in who reaches this machine (default: 127.0.0.1)")  # fmt: skip
    command.set_defaults(act=_serve)


def _serve(options: argparse.Namespace) -> int:
    from rekindle.run import Run
    from rekindle.serving.server import is_loopback, serve

    def told(address: str) -> None:
        if not is_loopback(options.host):
            print("rekindle: everyone who reaches this machine can open the page; there is no password.", file=sys.stderr)
        print(f"open {address} and drop pictures on it; Ctrl-C ends.", flush=True)

    with suppress(KeyboardInterrupt):  # How it ends.
        serve(Run(find_run(options.run)), options.host, options.port, told)
    return OK
