"""A run as one page that opens offline: pictures and style lie inside it, it runs no script, and names in it are escaped."""

import io
import shlex
from pathlib import Path
from typing import Any

from PIL import Image

from rekindle.errors import UserError
from rekindle.files import embed, write_atomic
from rekindle.records import DATA, read_environment, read_history
from rekindle.report.advice import advice
from rekindle.report.cards import FIRST, read_cards
from rekindle.report.format import duration, place_name, split_title
from rekindle.report.results import WORST, confused_pairs, final_split, worst_mistakes
from rekindle.report.run_pictures import HEAT_MAPS, MISTAKES, PICTURES, RunPicture
from rekindle.report.statistics import wilson
from rekindle.report.template import Filters, render
from rekindle.run import Run
from rekindle.spec import SPEC, RunSpec

PAIRS = 10


def write_report(folder: Path, result: dict[str, Any] | None = None) -> Path:
    """Write report.html into a run folder from the files there; a section whose file is missing is left out.

    Args:
        folder: The run's.
        result: What result.json will hold, for a run that is about to write it last; None reads it.

    Returns:
        The page's path.

    Raises:
        UserError: If the run has not finished, or a file of it is damaged.
    """
    folder = Path(folder)
    result = Run(folder).result if result is None else result
    filters: Filters = {"percent": lambda share: f"{100 * share:.1f}", "duration": duration, "place_name": place_name}
    path = folder / "report.html"
    write_atomic(path, render("report/run.html.j2", _content(folder, result), filters))
    return path


def _content(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """What the template shows, by name; None or empty where a file is missing."""
    split = final_split(result)
    measured = result[split]
    low, high = wilson(measured["accuracy"], measured["count"])
    data = DATA.read(folder / "data.json") if (folder / "data.json").is_file() else None
    spec, settings = folder / "spec.yaml", _settings(folder / "spec.yaml")
    history: list[Any] = [*read_history(folder)] if (folder / "metrics.jsonl").is_file() else []
    probe = (result.get("probe") or {}).get(split)
    return {
        "uncalibrated": result["uncalibrated"].get(split) if result.get("temperature", 1.0) != 1.0 else None,
        "probe": probe, "cautions": result.get("cautions", []), "gain": measured["accuracy"] - probe["accuracy"] if probe else 0.0,
        "result": result, "measured": measured, "split": split_title(split), "low": low, "high": high, "folder": folder,
        "right": round(measured["accuracy"] * measured["count"]),
        "per_class": sorted(measured["per_class"], key=lambda row: row["f1"]),
        "pairs": confused_pairs(measured["confusion"], result["classes"], PAIRS),
        "wrong": worst_mistakes(folder, split, WORST) if (folder / "predictions.csv").is_file() else [],
        "speed": max((line["timing"]["images_per_second"] for line in history), default=None),
        "restarts": [line["epoch"] + 1 for line in history if line["restarted"]],
        "train_count": len(data["files"].get("train", [])) if data else None, "notes": data.get("notes", []) if data else [],
        "weights": start_weights(settings) if settings else None, "fit": fit_command(settings) if settings else None,
        "predict": f"rekindle predict {shlex.quote(str(_near(folder)))} new-pictures/",
        "spec": _text(spec), "environment": _text(folder / "environment.json"), "pictures": _pictures(folder),
        "cards": read_cards(folder / MISTAKES), "first": FIRST, "heat": read_cards(folder / HEAT_MAPS),
        "advice": advice(result, history, RunSpec.from_dict(settings).minutes if settings else None), "finished": result["timing"].get("finished", ""),
        "version": read_environment(folder).get("packages", {}).get("rekindle"),
    }  # fmt: skip


def _pictures(folder: Path) -> dict[str, tuple[RunPicture, str]]:
    """What there is of `PICTURES`, each with the address by which the page holds it."""
    files = {name: folder / f"{name}.{picture.kind}" for name, picture in PICTURES.items()}
    return {name: (PICTURES[name], _embedded(file)) for name, file in files.items() if file.is_file()}


def _embedded(file: Path) -> str:
    """A drawing as it is; photographs as JPEG, which takes a tenth of their PNG."""
    if file.suffix == ".svg":
        return embed(file.read_bytes(), "svg+xml")
    buffer = io.BytesIO()
    try:
        with Image.open(file) as picture:
            picture.convert("RGB").save(buffer, "JPEG", quality=85)
    except OSError:
        raise UserError(f"{file} is damaged; remove it, and write the page again with rekindle report {file.parent}.") from None
    return embed(buffer.getvalue())


def _near(folder: Path) -> Path:
    """A folder as it is named from where the command was typed, if it lies below; a page that is shown to others need not tell the rest."""
    try:
        here = Path.cwd()
    except OSError:  # It was removed meanwhile.
        return folder
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def start_weights(spec: dict[str, Any]) -> str:
    """Where the weights came from, in words.

    Returns:
        Words for a sentence.
    """
    return {"default": "the model's own pre-trained weights", "none": "random weights"}.get(
        spec["weights"], place_name(str(spec["weights"]))
    )


def fit_command(spec: dict[str, Any]) -> str:
    """The shell command that makes a run with these settings; those at their defaults are left out.

    Returns:
        A line for a shell.

    Examples:
        >>> fit_command({"data": "my photos", "epochs": 40, "flip": False, "seed": 0, "defaults": "0.2"})
        "rekindle fit 'my photos' --epochs 40 --no-flip"
    """
    chosen = RunSpec.from_dict(spec).chosen()
    words = ["rekindle", "fit", str(chosen.pop("data"))]
    for name, value in chosen.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return shlex.join(words)


def _text(path: Path) -> str | None:
    """What a page quotes, word by word."""
    return path.read_text("utf-8", "replace") if path.is_file() else None


def _settings(path: Path) -> dict[str, Any] | None:
    """The fields of spec.yaml under the names of today."""
    if not path.is_file():
        return None
    with SPEC.surprises(path):
        return RunSpec.from_dict(SPEC.read_yaml(path)).to_dict()
