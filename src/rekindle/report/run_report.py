"""A run's pictures and its one-file page, which opens offline; class names in it are escaped."""

import base64
import csv
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from rekindle.checkpoints import write_atomic
from rekindle.data import Undecodable, decode
from rekindle.report import figures

WORST = 16
THUMB = 128


def write_pictures(folder: Path, history: list[dict[str, Any]], result: dict[str, Any], root: Path) -> None:
    """Write curves.png, confusion.png and mistakes.png.

    Args:
        folder: The run's.
        history: Lines of metrics.jsonl.
        result: What result.json will hold.
        root: The data folder, for the pictures of mistakes.
    """
    split = final_split(result)
    figures.save(figures.curves(history), folder / "curves.png")
    figures.save(figures.confusion(result[split]["confusion"], result["classes"]), folder / "confusion.png")
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["split"] == split and row["correct"] == "0"]
    wrong.sort(key=lambda row: (-float(row["confidence"]), row["path"]))
    shown = [(row, image) for row in wrong[:WORST] if (image := _thumbnail(root / row["path"])) is not None]
    figures.save(
        figures.mistakes([i for _, i in shown], [r["label"] for r, _ in shown], [r["prediction"] for r, _ in shown], [float(r["confidence"]) for r, _ in shown]),
        folder / "mistakes.png",
    )  # fmt: skip


def write_report(folder: Path, result: dict[str, Any]) -> Path:
    """Write report.html from the folder's files and `result`."""
    split = final_split(result)
    figures_of = result[split]
    low, high = wilson(figures_of["accuracy"], figures_of["count"])
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("rekindle.report").joinpath("run.html.j2").read_text("utf-8"))
    page = template.render(
        result=result, split={"val": "validation"}.get(split, split), figures=figures_of, low=low, high=high, folder=folder.name,
        data=json.loads((folder / "data.json").read_text("utf-8")),
        spec=(folder / "spec.yaml").read_text("utf-8"), environment=(folder / "environment.json").read_text("utf-8"),
        pictures={name: _embed(folder / f"{name}.png") for name in ("curves", "confusion", "mistakes", "samples") if (folder / f"{name}.png").is_file()},
    )  # fmt: skip
    path = folder / "report.html"
    write_atomic(path, page)
    return path


def final_split(result: dict[str, Any]) -> str:
    """"test", or "val" where there is no test split."""
    return "test" if "test" in result else "val"


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `count` trials (JASA 1927)."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _thumbnail(path: Path) -> np.ndarray | None:
    try:
        image = decode(path, THUMB)
    except (Undecodable, OSError):
        return None
    top, left = (image.shape[0] - THUMB) // 2, (image.shape[1] - THUMB) // 2
    return image[top : top + THUMB, left : left + THUMB]


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
