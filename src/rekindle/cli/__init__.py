"""The command: arguments to function calls. Only the modules here print, and they import torch only when they must."""

import argparse
import difflib
import sys
from collections.abc import Callable

import rekindle
from rekindle.cli import analyze, board, catalog, completion, data, demo, export, fit, predict, run, serve, soup, study
from rekindle.cli.failures import tell
from rekindle.cli.grouped import GroupedParser
from rekindle.cli.output import add_debug, prepare_output
from rekindle.errors import UserError
from rekindle.files import drop_output, expand
from rekindle.training.allocator import keep_freed_memory

PIPE_CLOSED = 141  # As shells count what a signal ended.


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 only when it did the job.

    Returns:
        0; 2 for bad input, 130 where it was stopped, 141 where nobody reads on, 1 where it failed otherwise.
    """
    prepare_output()
    keep_freed_memory()
    try:
        try:
            return _act(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # The reader has seen enough, as head does.
        drop_output(sys.stdout, sys.stderr)
        return PIPE_CLOSED


def _act(arguments: list[str] | None) -> int:
    options, unknown = parser().parse_known_args(arguments)
    act: Callable[[argparse.Namespace], int] = options.act
    try:
        _check_known(options.command, unknown)
        _expand_paths(options)
        return act(options)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  Here, and only here, whatever is raised becomes a sentence.
        return tell(error, getattr(options, "debug", False))


def parser() -> argparse.ArgumentParser:
    """All commands and their options.

    Returns:
        A parser whose result has `act`, the function to call.
    """
    top = GroupedParser(
        prog="rekindle",
        description="Fine-tune a pre-trained image network on a small labelled set.",
        epilog="example: rekindle fit photos/      (photos/CLASS/picture.jpg, or photos/train/CLASS/picture.jpg)",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"rekindle {rekindle.__version__}")
    add_debug(top)
    commands = top.add_commands()
    for room in (fit, predict, serve, run, soup, export, catalog, data, study, board, analyze, demo):
        room.register(commands)
    completion.register(commands, top)
    return top


def _expand_paths(options: argparse.Namespace) -> None:
    """Put the user's folder in place of a leading `~`, which a shell leaves in `--out=~/runs` and in quotes."""
    for name, value in vars(options).items():
        if isinstance(value, str) and value.startswith("~"):
            setattr(options, name, str(expand(value)))
        elif isinstance(value, list):
            setattr(options, name, [str(expand(item)) if str(item).startswith("~") else item for item in value])


def _check_known(command: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Refuse what no option of the command took, naming the option that was likely meant."""
    if unknown:
        known = [flag for action in command._actions for flag in action.option_strings if flag.startswith("--")]
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{command.prog} --help lists its options."
        raise UserError(f"{command.prog} takes no {unknown[0]}; {hint}")
