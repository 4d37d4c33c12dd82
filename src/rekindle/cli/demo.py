"""The demonstration: handwritten digits, ten pictures a class, fine-tuned by default and by a linear probe. It needs no network connection."""

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekindle.cli.output import add_command, table
from rekindle.errors import Busy, number_of
from rekindle.files import embed, write_atomic
from rekindle.locks import locked
from rekindle.training.listener import Listener
from rekindle.training.progress import ProgressBar

OK = 0
POOL, VALIDATION = 60, 20
PARTIAL = ".data.partial-"
SETTINGS: dict[str, Any] = {"image_size": 64, "per_class": 10, "epochs": 12, "batch_size": 20, "flip": False, "precision": "32"}
DEFAULT, PROBE = "fine-tuned, by default", "linear probe, not fine-tuned"


@dataclass(frozen=True)
class Way:
    """One way to a classifier, measured on the test pictures.

    Attributes:
        name: In words.
        accuracy: From 0 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        report: The run's page; None for the probe, which is part of a run.
    """

    name: str
    accuracy: float
    low: float
    high: float
    report: Path | None = None

    def cells(self) -> list[str]:
        """A row of the table.

        Returns:
            One text a column.
        """
        return [self.name, f"{100 * self.accuracy:.1f}", f"{100 * self.low:.1f} to {100 * self.high:.1f}"]


@dataclass(frozen=True)
class Demo:
    """What the demonstration found.

    Attributes:
        ways: By default, and the linear probe.
        sentence: The outcome in words, whatever it is.
        page: A page that opens offline.
    """

    ways: list[Way]
    sentence: str
    page: Path


def register(commands: Any) -> None:
    """Add the command."""
    command = add_command(
        commands, "demo", "fine-tune the installed network on handwritten digits, and hold it against a linear probe", "rekindle demo"
    )
    command.add_argument("--out", default="demo", help="folder for data, runs and page (default: demo)")
    command.set_defaults(act=_demo)


def demo(out: Path, listener: Listener) -> Demo:
    """Fine-tune the installed network by default, hold it against its linear probe, and write a page under `out`.

    Returns:
        The ways, what each reached, and the page.

    Raises:
        Busy: If another demonstration is at work there.
    """
    with locked(out / ".lock", note=listener.note) as mine:
        if not mine:
            raise Busy(f"another demonstration is at work in {out} at this moment; wait for it, or choose another --out.")
        return _demonstrate(out, listener)


def _demonstrate(out: Path, listener: Listener) -> Demo:
    from rekindle import fit
    from rekindle.models import boxed
    from rekindle.report.figures import save_svg, seed_curves
    from rekindle.report.template import render

    boxed.check_installed()
    data, common = write_digits(out / "data"), {"out": out / "runs", "model": boxed.NAME, **SETTINGS}
    default = fit(data, listener=listener, **common)
    count = default.result["test"]["count"]
    ways = [
        _way(DEFAULT, default.result["test"]["accuracy"], count, default.folder / "report.html"),
        _way(PROBE, default.result["probe"]["test"]["accuracy"], count),
    ]
    save_svg(seed_curves({DEFAULT: [default.history]}), out / "curves.svg")
    found = Demo(ways, outcome(ways, count), out / "demo.html")
    pictures = {
        name: embed(path.read_bytes(), kind)
        for name, path, kind in (("curves", out / "curves.svg", "svg+xml"), ("samples", default.folder / "samples.png", "png"))
    }
    settings = ", ".join(f"{name} {value}" for name, value in {"model": boxed.NAME, **SETTINGS}.items())
    content = {"found": found, "count": count, "per_class": SETTINGS["per_class"], "pictures": pictures, "settings": settings, "out": out}
    write_atomic(found.page, render("report/demo.html.j2", content))
    return found


def _way(name: str, accuracy: float, count: int, report: Path | None = None) -> Way:
    from rekindle.report.statistics import wilson

    return Way(name, accuracy, *wilson(accuracy, count), report)


def write_digits(folder: Path) -> Path:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels as PNG files: 60 a class to draw from, 20 to validate, the rest to test.

    They are written beside `folder` and moved there when all are whole; what a killed command left is removed.

    Returns:
        The folder.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    if folder.is_dir():
        return folder
    for left in folder.parent.glob(PARTIAL + "*"):
        shutil.rmtree(left, ignore_errors=True)
    work, digits = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent)), load_digits()
    for label in range(10):
        for number, index in enumerate(np.flatnonzero(digits.target == label)):
            split = "train" if number < POOL else "val" if number < POOL + VALIDATION else "test"
            path = work / "whole" / split / str(label) / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[index] * 255 / 16).round().astype(np.uint8)).save(path)
    os.replace(work / "whole", folder)
    work.rmdir()
    return folder


def outcome(ways: list[Way], count: int) -> str:
    """The first way against the others in one sentence, with no verdict where intervals overlap.

    Returns:
        A sentence.
    """
    first, *others = ways
    against = [f"{100 * (first.accuracy - other.accuracy):+.1f} points against {other.name}{_doubt(first, other)}" for other in others]
    return f"{first.name}: {100 * first.accuracy:.1f} % of {number_of(count, 'new picture')} right; {', '.join(against)}."


def _doubt(first: Way, other: Way) -> str:
    apart = first.low > other.high or other.low > first.high
    return "" if apart else " (no difference that so few pictures could show)"


def _demo(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        found = demo(Path(options.out), bar)
    table(["way", "test %", "95 % interval"], [way.cells() for way in found.ways])
    print(found.sentence)
    print(f"page to open: {found.page}\nrun folders: {Path(options.out) / 'runs'}")
    return OK
