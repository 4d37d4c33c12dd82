"""Pictures whose bytes are damaged end in a row with an answer or a reason, and stop no command."""

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rekindle.cli import main
from tests.chaos.byte_damage import damaged
from tests.chaos.commands import FIT, fit, run_of
from tests.chaos.ledger import counted
from tests.faults.warm import start
from tests.toys import picture_folder

pytestmark = pytest.mark.chaos
SEED, PICTURES, AT_ONCE, LONGEST = 17, 2500, 250, 600
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF"}


def whole_pictures() -> dict[str, bytes]:
    """One picture in each format, by its ending."""
    pixels = np.random.default_rng(SEED).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    found = {}
    for ending, name in FORMATS.items():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name)
        found[ending] = file.getvalue()
    return found


def write_damaged(folder: Path, count: int, stream: random.Random) -> None:
    """Damaged pictures in two class folders."""
    pictures = whole_pictures()
    for number in range(count):
        ending = stream.choice(list(pictures))
        kind, content = damaged(pictures[ending], stream)
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04d}-{kind}{ending}").write_bytes(content)


def commanded(*arguments: str) -> int:
    """In a process of its own: a command that is ended when it hangs."""
    import faulthandler

    faulthandler.dump_traceback_later(LONGEST, exit=True)
    return main(list(arguments))


def ended(said: Path, *arguments: str) -> tuple[int, str]:
    """Exit status of a command, and what it said."""
    process = start(commanded, *arguments, said=said)
    process.join()
    return process.exitcode or 0, said.read_text("utf-8")


def test_predict_check_and_fit(tmp_path: Path, count: Callable[[int], int]) -> None:
    process = start(fit, picture_folder(tmp_path / "data", {"": 12}, size=24), tmp_path, said=tmp_path / "fit.txt")
    process.join()
    run, stream = str(run_of(tmp_path)), random.Random(SEED)
    with counted("a picture's bytes damaged, for `predict`, `data check` and `fit`", SEED) as tally:
        while tally.times < count(PICTURES):
            folder, size = tmp_path / f"damaged{tally.times}", min(AT_ONCE, count(PICTURES) - tally.times)
            write_damaged(folder, size, stream)
            table = tmp_path / f"{folder.name}.csv"
            texts = [
                ended(tmp_path / f"{folder.name}-predict.txt", "predict", run, str(folder), "--out", str(table)),
                ended(tmp_path / f"{folder.name}-check.txt", "data", "check", str(folder)),
                ended(tmp_path / f"{folder.name}-fit.txt", "fit", str(folder), *FIT, "--out", str(tmp_path / "more")),
            ]
            wrong = [(status, text[-300:]) for status, text in texts if status not in (0, 1, 2) or "Traceback" in text]
            with open(table, encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            if wrong or len(rows) != size:
                tally.lose(f"{folder.name}: {len(rows)} rows for {size} pictures; {wrong}", times=size)
                continue
            for row in rows:
                assert row["error"] or row["class_1"]
                tally.add(row["error"] or "an answer, since its pixels can be read")
