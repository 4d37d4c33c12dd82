"""The command: arguments to function calls. Only the modules here print, and they import torch only when they must."""

import argparse
import difflib
import sys
from collections.abc import Callable

import rekindle
from rekindle.cli import analyze, catalog, data, demo, fit, run, study
from rekindle.errors import Busy, UserError

FAILED, BAD_INPUT, STOPPED = 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 only when it did the job."""
    options, unknown = parser().parse_known_args(arguments)
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        _check_known(options.command, unknown)
        return act(options)
    except UserError as error:
        print(f"rekindle: {error}", file=sys.stderr)
        return FAILED if isinstance(error, Busy) else BAD_INPUT
    except KeyboardInterrupt:
        print("\nrekindle: stopped.", file=sys.stderr)
        return STOPPED
    except OSError as error:
        print(f"rekindle: {error}", file=sys.stderr)
        return FAILED


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


def _check_known(command: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Refuse what no option of the command took, naming the option that was likely meant."""
    if unknown:
        known = [flag for action in command._actions for flag in action.option_strings if flag.startswith("--")]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{command.prog} --help lists its options."
        raise UserError(f"{command.prog} takes no {unknown[0]}; {hint}")
