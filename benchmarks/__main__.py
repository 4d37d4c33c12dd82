"""Measure, and write what was found to docs/performance.md: `python -m benchmarks [--only l2_sp fsp] [--pairs 12] ...`."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # Without it the profiler that counts memory writes lines of its own.

import torch

from benchmarks import compiled, epochs, frozen, machine, methods, page, scale, starting, studies

ROOT = Path(__file__).resolve().parents[1]
FIGURES, PAGE = ROOT / "docs" / "results" / "performance.json", ROOT / "docs" / "performance.md"
Part = Callable[[argparse.Namespace], dict[str, Any]]


def of_methods(options: argparse.Namespace) -> dict[str, Any]:
    """Each method's step over an L2 step."""
    setting = methods.Setting(options.model, options.image_size, options.batch_size)
    rows = methods.measure(setting, options.pairs, options.only, partial(print, file=sys.stderr, flush=True))
    return {"setting": vars(setting), "rows": rows}


def of_starting(options: argparse.Namespace) -> dict[str, Any]:
    """Commands until they begin, and a short run."""
    return starting.measure(options.rounds, partial(print, file=sys.stderr, flush=True))


def of_epochs(options: argparse.Namespace) -> dict[str, Any]:
    """A run's epoch over a hand-written one."""
    rows = epochs.measure(options.rounds, options.only, partial(print, file=sys.stderr, flush=True))
    return {"batch_size": epochs.BATCH, "rounds": options.rounds, "rows": rows}


def of_frozen(options: argparse.Namespace) -> dict[str, Any]:
    """Epochs with stored activations over those without."""
    rows = frozen.measure(options.rounds, options.only, partial(print, file=sys.stderr, flush=True))
    return {"rounds": options.rounds, "size": frozen.SIZE, "views": frozen.VIEWS, "rows": rows}


def of_compiled(options: argparse.Namespace) -> dict[str, Any]:
    """Compiled steps over ordinary ones."""
    rows = compiled.measure(options.pairs, options.only, partial(print, file=sys.stderr, flush=True))
    return {"pairs": options.pairs, "batch_size": epochs.BATCH, "rows": rows}


def of_scale(options: argparse.Namespace) -> dict[str, Any]:
    """Data of ever more pictures."""
    rows = scale.measure(options.pictures, partial(print, file=sys.stderr, flush=True))
    return {"classes": scale.CLASSES, "edge": scale.EDGE, "phases": scale.PHASES, "rows": rows}


def of_studies(options: argparse.Namespace) -> dict[str, Any]:
    """Small runs an hour."""
    return studies.measure(options.rounds, partial(print, file=sys.stderr, flush=True))


PARTS: dict[str, Part] = {
    "epochs": of_epochs, "starting": of_starting, "studies": of_studies, "compiled": of_compiled, "frozen": of_frozen, "scale": of_scale, "methods": of_methods,
}  # fmt: skip
"""What can be measured, by name. A part gives figures that JSON can hold; `page.SECTIONS` has the section that shows them."""


def main() -> None:
    """Measure the parts asked for; figures and page are written after each of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="(default: all)")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="NAME", help="methods or networks to measure (default: all); nothing is written"
    )
    parser.add_argument("--pairs", type=int, default=12, help="steps of each side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="epochs and starts that are measured (default: %(default)s)")
    parser.add_argument(
        "--pictures",
        type=int,
        nargs="+",
        default=[10_000, 100_000, 1_000_000],
        help="numbers of pictures of the part scale (default: %(default)s)",
    )
    parser.add_argument("--model", default="torchvision:resnet18", help="(default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=96, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--gpu", action="store_true", help="measure nothing where there is none")
    options = parser.parse_args()
    if options.gpu and machine.DEVICE.type != "cuda":
        parser.error("this machine has no GPU that torch knows; leave --gpu out to measure its processor.")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for name in options.part or PARTS:
        found = {**machine.facts(), **PARTS[name](options)}
        if options.only:
            print(page.text({machine.name(): {name: found}}))
        else:
            keep(name, found)


def keep(part: str, found: dict[str, Any]) -> None:
    """Put figures of this machine beside those of others and of other parts, and write the page anew."""
    machines: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text("utf-8"))
    machines.setdefault(machine.name(), {})[part] = found
    FIGURES.write_text(json.dumps(machines, indent=2) + "\n", "utf-8")
    PAGE.write_text(page.text(machines), "utf-8")


if __name__ == "__main__":
    main()
