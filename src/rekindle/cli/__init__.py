"""The command: arguments to function calls. Only the modules here print, and they import torch only when they must."""

import argparse
import sys
from collections.abc import Callable

import rekindle
from rekindle.cli import analyze, catalog, data, demo, fit, run, study
from rekindle.errors import UserError

BAD_INPUT, STOPPED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 only when it did the job."""
    options = parser().parse_args(arguments)
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        return act(options)
    except UserError as error:
        print(f"rekindle: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nrekindle: stopped.", file=sys.stderr)
        return STOPPED
    except OSError as error:
        print(f"rekindle: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="rekindle",
        description="Fine-tune a pre-trained image network on a small labelled set.",
        epilog="example: rekindle fit photos/      (photos/CLASS/picture.jpg, or photos/train/CLASS/picture.jpg)",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"rekindle {rekindle.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for room in (fit, run, catalog, data, study, analyze, demo):
        room.register(commands)
    return top
