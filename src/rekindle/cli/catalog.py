"""The commands that list what there is: methods and networks."""

import argparse
import json
import sys
from typing import Any

from rekindle.cli.networks import network_names
from rekindle.cli.output import add_command, add_json, say
from rekindle.errors import UserError
from rekindle.methods._catalog import VARIANTS, MethodEntry, card, library, others_bring_some

OK = 0


def register(commands: Any) -> None:
    """Add both commands."""
    methods = add_command(commands, "methods", "list the methods and their options, or show the card of one", "rekindle methods rifle")
    methods.add_argument("name", nargs="?", help="a method or direction, to show its card")
    add_json(methods)
    methods.set_defaults(act=_methods)
    models = add_command(commands, "models", "list the networks; of a single one, its classifier and stages", "rekindle models 'resnet*'")
    models.add_argument("pattern", nargs="?", default="*", help="shell pattern (default: *)")
    models.set_defaults(act=_models)


def _methods(options: argparse.Namespace) -> int:
    entries = library()
    if others_bring_some():
        from rekindle.methods._plugins import plugins

        found = plugins(frozenset(entries))
        entries |= found.entries
        for sentence in found.broken.values():
            print(f"rekindle: {sentence}.", file=sys.stderr)
    if options.name:
        print(card(options.name, entries))
    elif options.json:
        variants = {name: {"of": base, **fixed} for name, (base, fixed) in VARIANTS.items()}
        print(json.dumps({"methods": {name: entry.to_dict() for name, entry in entries.items()}, "variants": variants}))
    else:
        _list(entries)
    return OK


def _list(entries: dict[str, MethodEntry]) -> None:
    for family in sorted({entry.family for entry in entries.values()}, key=lambda family: (family == "directions", family)):
        print(f"\n{family.replace('_', '-')}")
        for name, entry in entries.items():
            if entry.family == family:
                listed = ", ".join(f"{option}={told.default!r}" for option, told in entry.options.items())
                say(f"  {name}({listed})", " " * 8)
                say(f"      {entry.summary}\n      {entry.paper}", " " * 6)
    print()
    for name, (base, fixed) in VARIANTS.items():
        say(f"{name}: {base} with {', '.join(f'{option}={value!r}' for option, value in fixed.items())}", " " * 4)
    say("Join methods with +, as in --method 'l2_sp(alpha=0.01)+rifle(periods=4)'; --direction takes one of the directions.")
    say("rekindle methods NAME shows the card of one.")


def _models(options: argparse.Namespace) -> int:
    found = network_names(options.pattern)
    if not found:
        raise UserError(f"no network matches {options.pattern!r}; try 'resnet*' or 'torchvision:*'.")
    print("\n".join(found))
    if found == [options.pattern]:
        from rekindle import models

        module = models.build(options.pattern, weights="none").module
        head = models.find_classifier(module)
        print(f"classifier: {', '.join(head)}\nstages: {', '.join(models.stages(module, head))}")
    return OK
