"""The demonstration: handwritten digits, ten pictures a class, with RIFLE and without. It needs no network connection."""

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.cli.output import ProgressBar, add_command, show
from rekindle.errors import Busy
from rekindle.files import write_atomic
from rekindle.locks import locked

if TYPE_CHECKING:
    from rekindle.report.compare import Comparison

OK = 0
METHODS = ("l2", "l2+rifle(periods=2)")
SEEDS = (0, 1, 2)
POOL, VALIDATION = 60, 20
PARTIAL = ".data.partial-"
SETTINGS: dict[str, Any] = {
    "model": "tiny", "per_class": 10, "epochs": 40, "lr": 0.01, "batch_size": 20, "flip": False, "precision": "32",
}  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """What the demonstration found.

    Attributes:
        comparison: Runs, means over seeds and the paired difference.
        sentence: The outcome in words, whatever it is.
        page: Markdown page with table and curves.
    """

    comparison: "Comparison"
    sentence: str
    page: Path


def register(commands: Any) -> None:
    """Add the command."""
    command = add_command(commands, "demo", "fine-tune the packaged network on handwritten digits, with and without RIFLE", "rekindle demo")
    command.add_argument("--out", default="demo", help="folder for data, runs and table (default: demo)")
    command.set_defaults(act=_demo)


def demo(out: Path, listener: Any) -> Demo:
    """Fine-tune the packaged network three times with each method, and write a table and curves under `out`.

    Raises:
        Busy: If another demonstration is at work there.
    """
    with locked(out / ".lock", note=listener.note) as mine:
        if not mine:
            raise Busy(f"another demonstration is at work in {out} at this moment; wait for it, or choose another --out.")
        return _demonstrate(out, listener)


def _demonstrate(out: Path, listener: Any) -> Demo:
    from rekindle import fit
    from rekindle.report.compare import compare
    from rekindle.report.figures import save, seed_curves

    data = write_digits(out / "data")
    runs = [fit(data, out=out / "runs", listener=listener, method=method, seed=seed, **SETTINGS) for seed in SEEDS for method in METHODS]
    comparison = compare([run.folder for run in runs])
    histories = {method: [run.history for run in runs if run.result["method"] == method] for method in METHODS}
    save(seed_curves(histories), out / "curves.png")
    sentence = outcome(comparison.pairs[0])
    write_atomic(out / "demo.md", page(comparison, sentence))
    return Demo(comparison, sentence, out / "demo.md")


def write_digits(folder: Path) -> Path:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels as PNG files: 60 a class to draw from, 20 to validate, the rest to test.

    They are written beside `folder` and moved there when all are whole; what a killed command left is removed.
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


def outcome(pair: dict[str, Any]) -> str:
    """The paired difference in one sentence, with no verdict where the interval holds zero."""
    points = f"{100 * pair['difference']:+.2f} points over {pair['n']} paired seeds"
    if pair["low"] is None:
        return f"{pair['to']} against {pair['from']}: {points}; too few differing pairs for an interval."
    interval = f"95 % interval {100 * pair['low']:+.2f} to {100 * pair['high']:+.2f}"
    if pair["low"] <= 0 <= pair["high"]:
        return f"{pair['to']} against {pair['from']}: {points} ({interval}): no difference that so few seeds could show."
    verb = "helps" if pair["difference"] > 0 else "hurts"
    return f"Re-initialising the head {verb} here: {points} ({interval})."


def page(comparison: "Comparison", sentence: str) -> str:
    """Markdown with the table, the curves and the settings."""
    settings = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    return "\n".join([
        "# Handwritten digits, ten pictures a class", "",
        f"A network trained on CIFAR-10, fine-tuned on scikit-learn's digits ({settings}); accuracy on {comparison.runs[0]['count']} test pictures.", "",
        sentence, "", "![validation accuracy by epoch](curves.png)", "", comparison.to_markdown(),
    ])  # fmt: skip


def _demo(options: argparse.Namespace) -> int:
    with ProgressBar() as bar:
        found = demo(Path(options.out), bar)
    show(found.comparison.to_rich())
    print(found.sentence)
    print(f"table and curves: {found.page}\nrun folders: {Path(options.out) / 'runs'}")
    return OK
