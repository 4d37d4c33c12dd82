"""The commands that list what there is, methods and networks, and the one that tries a method out."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from rekindle.cli.networks import network_names
from rekindle.cli.output import add_command, add_json, say
from rekindle.errors import UserError, number_of
from rekindle.methods._catalog import VARIANTS, MethodEntry, card, check_known, library, others_bring_some

OK = 0


def register(commands: Any) -> None:
    """Add the three commands."""
    methods = add_command(commands, "methods", "list the methods and their options, or show the card of one", "rekindle methods rifle")
    methods.add_argument("name", nargs="?", help="a method or direction, to show its card")
    add_json(methods)
    methods.set_defaults(act=_methods)
    test = add_command(
        commands, "test-method", "try out what every method has to stand, on one of your own", "rekindle test-method early_strong",
        "The method is trained on a small network for seconds: neutral settings, closed forms, resuming to the bit, micro-batches, directions.",
    )  # fmt: skip
    test.add_argument("name", help="a method or direction, of the library or of another package; `rekindle methods` lists them")
    add_json(test)
    test.set_defaults(act=_test_method)
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


def _test_method(options: argparse.Namespace) -> int:
    import torch

    from rekindle.method import Direction
    from rekindle.registry import directions, methods
    from rekindle.testing import Kind, checks_of, run_check

    torch.set_num_threads(1)  # On a network this small, threads wait for each other.
    kinds: dict[str, Kind] = {**methods(), **directions()}
    check_known("method", options.name, options.name, kinds)
    kind = kinds[options.name]
    verdicts = []
    for check in checks_of(kind):
        verdicts.append(run_check(check, kind))
        if not options.json:
            found = verdicts[-1]
            say(f"{found.outcome:<8} {found.check}{found.why and f': {found.why}'}", " " * 9)
    if options.json:
        print(json.dumps({"name": options.name, "checks": [asdict(verdict) for verdict in verdicts]}))
    broken = sum(verdict.outcome == "broken" for verdict in verdicts)
    if broken:
        raise UserError(f"{options.name} does not stand {broken} of {number_of(len(verdicts), 'check')}; see docs/your_own_method.md.")
    if not options.json:
        say(f"{options.name} stands all that every {'direction' if issubclass(kind, Direction) else 'method'} has to.")
    return OK


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
