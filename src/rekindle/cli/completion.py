"""The command `rekindle completion`: what a shell needs to complete commands, options and files."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from rekindle.cli.output import add_command

OK = 0
SHELLS = ("bash", "zsh")


def register(commands: Any, top: argparse.ArgumentParser) -> None:
    """Add the command, which completes all that `top` takes."""
    example = 'eval "$(rekindle completion bash)";  rekindle completion zsh > ~/.zfunc/_rekindle'
    more = "Put the first into ~/.bashrc; the second needs its folder in zsh's fpath."
    command = add_command(commands, "completion", "print a script by which the shell completes commands and options", example, more)
    command.add_argument("shell", choices=SHELLS, help="whose script to print")
    command.set_defaults(act=partial(_complete, top))


def _complete(top: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    import shtab

    for action in _values(top):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(top, shell=options.shell))
    return OK


def _values(command: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a command and of those below it that take a text of the user's own, which may be a path."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _values(below)
        elif action.nargs != 0 and not action.choices and action.type is None:
            yield action
