"""The command `rekindle export`."""

import argparse
import json
import sys
from typing import Any

from rekindle.cli.output import add_command, add_json
from rekindle.cli.run_names import HELP, find_run
from rekindle.errors import number_of

OK = 0


def register(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "export", "write a finished run as files that need no rekindle: ONNX, timm, the Hub",
                          "rekindle export runs/photos-… --format onnx timm")  # fmt: skip
    command.add_argument("run", help=HELP)
    command.add_argument("--format", nargs="+", choices=("onnx", "timm"), default=["onnx"], dest="formats", metavar="FORMAT",
                         help="onnx: one file from a decoded picture to probabilities, and a script that runs it; timm: a folder for "
                              "timm.create_model and the Hugging Face Hub (default: onnx)")  # fmt: skip
    command.add_argument("--int8", action="store_true", help="also quantise the ONNX file to 8-bit integers, and measure what that loses")
    command.add_argument("--data", help="labelled pictures to check the export on (default: the run's own)")
    command.add_argument("--out", help="folder to write to (default: export in the run folder)")
    add_json(command, "JSON instead of sentences")
    command.set_defaults(act=_export)


def _export(options: argparse.Namespace) -> int:
    from rekindle.exporting.export import export

    done = export(
        find_run(options.run), formats=options.formats, int8=options.int8, data=options.data, out=options.out,
        progress=lambda text: print(f"{text} ...", file=sys.stderr),
    )  # fmt: skip
    if options.json:
        print(json.dumps({"folder": str(done.folder), **done.to_dict()}))
        return OK
    for name, parity in done.parity.items():
        print(
            f"{name}: the same class as the run on {parity.same_class} of {number_of(parity.pictures, 'picture')}, probabilities within {parity.largest_difference:.1g}."
        )
    if done.int8:
        print(
            f"int8: accuracy {100 * done.int8['accuracy']:.1f} % of {number_of(done.int8['pictures'], 'picture')} ({100 * done.int8['float_accuracy']:.1f} % in float32), "
            f"{done.int8['bytes'] / 1e6:.1f} MB."
        )
    print(f"It lies in {done.folder}.")
    return OK
