"""The command: arguments to function calls. It is the only place that prints, and it imports torch only when it must."""

import argparse
import dataclasses
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rekindle import cli_analyze, cli_data, cli_study
from rekindle.errors import Stopped, UserError
from rekindle.spec import RunSpec

OK, BAD_INPUT, STOPPED = 0, 2, 130


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
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _fit_command(commands)
    _add(commands, "predict", _predict, "classify new pictures with a finished run", "rekindle predict runs/photos-… new/ --top-k 3",
         ("run", {"help": "run folder"}), ("files", {"nargs": "+", "help": "picture files, or folders of them"}),
         ("--top-k", {"type": int, "default": 1, "help": "classes a picture (default: 1)"}),
         ("--out", {"help": "write here instead of to the terminal"}),
         ("--json", {"action": "store_true", "help": "JSON instead of CSV"}))  # fmt: skip
    _add(commands, "evaluate", _evaluate, "measure a finished run on other labelled pictures", "rekindle evaluate runs/photos-… more-photos/",
         ("run", {"help": "run folder"}), ("data", {"help": "FOLDER/CLASS/picture.jpg, or anything else that fit takes, whose test split is then measured"}),
         ("--json", {"action": "store_true", "help": "JSON instead of a table"}))  # fmt: skip
    _add(commands, "compare", _compare, "put finished runs side by side, with paired statistics", "rekindle compare runs/a runs/b",
         ("runs", {"nargs": "+", "help": "run folders"}), ("--json", {"action": "store_true", "help": "JSON instead of tables"}))  # fmt: skip
    _add(commands, "methods", _methods, "list the methods and their options, or show the card of one", "rekindle methods rifle",
         ("name", {"nargs": "?", "help": "a method or direction, to show its card"}),
         ("--json", {"action": "store_true", "help": "JSON instead of text"}))  # fmt: skip
    _add(commands, "models", _models, "list the networks; of a single one, its classifier and stages", "rekindle models 'resnet*'",
         ("pattern", {"nargs": "?", "default": "*", "help": "shell pattern (default: *)"}))  # fmt: skip
    cli_data.register(commands)
    cli_study.register(commands)
    cli_analyze.register(commands)
    _add(commands, "demo", _demo, "fine-tune the packaged network on handwritten digits, with and without RIFLE", "rekindle demo",
         ("--out", {"default": "demo", "help": "folder for data, runs and table (default: demo)"}))  # fmt: skip
    return top


def _add(
    commands: Any, name: str, act: Callable[[argparse.Namespace], int], text: str, example: str, *arguments: tuple[str, dict[str, Any]]
) -> None:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=f"example: {example}")
    for flag, settings in arguments:
        command.add_argument(flag, **settings)
    command.set_defaults(act=act)


def _fit_command(commands: Any) -> None:
    command = commands.add_parser(
        "fit", help="fine-tune a network on a folder of photographs", description="Fine-tune a network on a folder of photographs.",
        epilog="examples: rekindle fit photos/ --method 'l2_sp+rifle(periods=2)' --epochs 40;  rekindle fit --resume runs/photos-…",
    )  # fmt: skip
    texts = option_texts()
    for field in dataclasses.fields(RunSpec):
        kind = typing.get_type_hints(RunSpec)[field.name]
        flag = "--" + field.name.replace("_", "-")
        text = f"{texts[field.name]} (default: {field.default!r})"
        if field.name == "data":
            command.add_argument("data", nargs="?", help=texts["data"])
        elif kind is bool:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            choices = typing.get_args(kind) or None
            command.add_argument(flag, type=str if choices else kind, choices=choices, default=argparse.SUPPRESS, help=text)
    command.add_argument("--out", default="runs", help="folder in which the run's own folder is made (default: runs)")
    command.add_argument("--resume", metavar="RUN", help="continue this run folder; every setting comes from it")
    command.add_argument("--cache", action=argparse.BooleanOptionalAction, default=True,
                         help="keep decoded pictures for later runs; see rekindle data cache (no result depends on it)")  # fmt: skip
    command.add_argument(
        "--workers", type=int, help="threads that prepare the next batches meanwhile (default: chosen; no result depends on it)"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(act=_fit)


def option_texts() -> dict[str, str]:
    """What RunSpec's docstring says of each option; '%' doubled, as argparse wants it."""
    section = inspect.cleandoc(RunSpec.__doc__ or "").split("Args:")[1]  # Python 3.13 takes the indentation away, older ones do not.
    return {name: text.strip().rstrip(".").replace("%", "%%") for name, text in re.findall(r"^ {4}(\w+): (.+)$", section, re.MULTILINE)}


def _fit(options: argparse.Namespace) -> int:
    names = {field.name for field in dataclasses.fields(RunSpec)} - {"data"}
    given = {name: value for name, value in vars(options).items() if name in names}
    from rekindle import fit
    from rekindle.progress import Bar

    first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        with Bar(quiet=not first) as bar:
            run = fit(
                options.data, out=options.out, resume=options.resume, listener=bar, cache=options.cache, workers=options.workers, **given
            )
    except Stopped as error:
        print(f"rekindle: stopped; all is saved. Go on with: rekindle fit --resume {error}", file=sys.stderr)
        return STOPPED
    if not first:
        return OK
    if options.json:
        print(json.dumps({"run": str(run.folder), **run.result}))
        return OK
    from rekindle.report.format import split_title

    for split in ("val", "test"):
        if split in run.result:
            figures = run.result[split]
            print(f"{split_title(split)} accuracy {100 * figures['accuracy']:.1f} % of {figures['count']} pictures")
    print(f"report: {run.folder / 'report.html'}\npredict: rekindle predict {run.folder} FILES")
    return OK


def _predict(options: argparse.Namespace) -> int:
    from rekindle.run_folder import Run

    found = Run(Path(options.run)).predict(options.files, options.top_k)
    text = (
        json.dumps([dataclasses.asdict(row) for row in found], indent=2, ensure_ascii=False) + "\n"
        if options.json
        else _csv(found, options.top_k)
    )
    if options.out:
        from rekindle.files import write_atomic

        write_atomic(Path(options.out), text)
    else:
        sys.stdout.write(text)
    broken = sum(bool(row.error) for row in found)
    if broken:
        print(f"rekindle: {broken} of {len(found)} files could not be read; their rows say why.", file=sys.stderr)
    return OK if broken < len(found) else 1


def _csv(found: list[Any], top_k: int) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", *(f"{kind}_{rank}" for rank in range(1, top_k + 1) for kind in ("class", "confidence")), "error"])
    for row in found:
        cells = [cell for pair in zip(row.classes, row.confidences, strict=True) for cell in pair]
        writer.writerow([row.path, *cells, *[""] * (2 * top_k - len(cells)), row.error])
    return text.getvalue()


def _evaluate(options: argparse.Namespace) -> int:
    from rekindle.run_folder import Run

    figures = Run(Path(options.run)).evaluate(options.data)
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
    _table(["class", "precision", "recall", "F1", "pictures"], rows)
    return OK


def _compare(options: argparse.Namespace) -> int:
    from rekindle.report.compare import compare

    found = compare([Path(run) for run in options.runs])
    if options.json:
        print(json.dumps(found.to_dict()))
        return OK
    _show(found.to_rich())
    return OK


def _table(header: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    _show(table)


def _show(tables: Any) -> None:
    """Print tables; a file or a pipe gets them wide enough for long names."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(tables)


def _methods(options: argparse.Namespace) -> int:
    from rekindle.registry import VARIANTS, card, summaries

    if options.name:
        print(card(options.name))
        return OK
    found = summaries()
    if options.json:
        print(json.dumps({"methods": found, "variants": {name: {"of": base, **fixed} for name, (base, fixed) in VARIANTS.items()}}))
        return OK
    for family in dict.fromkeys(item["family"] for item in found.values()):
        print(f"\n{family.replace('_', '-')}")
        for name, item in found.items():
            if item["family"] == family:
                listed = ", ".join(f"{option}={value!r}" for option, value in item["options"].items())
                print(f"  {name}({listed})\n      {item['summary']}\n      {item['paper']}")
    print()
    for name, (base, fixed) in VARIANTS.items():
        print(f"{name}: {base} with {', '.join(f'{option}={value!r}' for option, value in fixed.items())}")
    print("Join methods with +, as in --method 'l2_sp(alpha=0.01)+rifle(periods=4)'; --direction takes one of the directions.")
    print("rekindle methods NAME shows the card of one.")
    return OK


def _models(options: argparse.Namespace) -> int:
    from rekindle import models

    found = models.names(options.pattern)
    if not found:
        raise UserError(f"no network matches {options.pattern!r}; try 'resnet*' or 'torchvision:*'.")
    print("\n".join(found))
    if found == [options.pattern]:
        module = models.build(options.pattern, weights="none").module
        head = models.find_classifier(module)
        print(f"classifier: {', '.join(head)}\nstages: {', '.join(models.stages(module, head))}")
    return OK


def _demo(options: argparse.Namespace) -> int:
    from rekindle.demo import demo
    from rekindle.progress import Bar

    with Bar() as bar:
        found = demo(Path(options.out), bar)
    _show(found.comparison.to_rich())
    print(found.sentence)
    print(f"table and curves: {found.page}\nrun folders: {Path(options.out) / 'runs'}")
    return OK


if __name__ == "__main__":
    sys.exit(main())
