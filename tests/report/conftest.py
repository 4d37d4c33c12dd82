"""Finished run folders made from nothing but a list of answers."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from rekindle.analysis import summarize
from rekindle.report import figures
from rekindle.report.run_page import write_report
from rekindle.report.run_pictures import Finished, write_pictures
from rekindle.spec import RunSpec

CLASSES = ["cat", "<script>alert('dog')</script>", "$_{emu 鳥 " + "x" * 60]
MakeRun = Callable[..., Path]


def history(epochs: int, restarts: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl in which accuracy climbs steadily."""
    return [
        {
            "epoch": e, "lr": {"backbone": 0.01, "head": 0.02}, "train": {"loss": 2 / (e + 1), "accuracy": e / epochs},
            "val": {"loss": 3 / (e + 1), "accuracy": e / (2 * epochs)}, "penalty": {"l2": 0.1}, "restarted": e in restarts,
            "timing": {"seconds": 1.5, "images_per_second": 100.0 + e},
        }
        for e in range(epochs)
    ]  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """make_run(name, answers, ...): `answers` are pairs (label, prediction) of class numbers, all said with confidence 0.8."""

    def make(name: str, answers: list[tuple[int, int]], *, test: bool = True, report: bool = True, first: int = 0, **spec: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        settings = RunSpec(**{"data": "photos", "epochs": 4, **spec})
        root = _pictures(tmp_path / settings.data, first + len(answers))
        labels = torch.tensor([label for label, _ in answers])
        probabilities = torch.full((len(answers), len(CLASSES)), 0.1)
        probabilities[torch.arange(len(answers)), torch.tensor([said for _, said in answers])] = 0.8
        measured = {split: summarize(probabilities, labels, CLASSES) for split in (("val", "test") if test else ("val",))}
        result = {
            "id": name, "status": "done", "method": settings.method, "model": settings.model, "data": settings.data,
            "seed": settings.seed, "lr": 0.01, "classes": CLASSES, "epochs": 4, "kept_epoch": 3, **measured, "timing": {"seconds": 6.0},
        }  # fmt: skip
        (folder / "spec.yaml").write_text(yaml.safe_dump(settings.to_dict()), encoding="utf-8")
        (folder / "environment.json").write_text('{"python": "3.12"}', encoding="utf-8")
        (folder / "data.json").write_text(
            json.dumps({"classes": CLASSES, "files": {"train": ["a", "b"]}, "notes": ["a <b>note</b>"]}), encoding="utf-8"
        )
        lines = history(4, restarts=(2,))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["split", "path", "label", "prediction", "confidence", "correct"])
            for split in measured:
                writer.writerows(
                    [split, f"{first + i}.png", CLASSES[label], CLASSES[said], "0.800000", int(label == said)]
                    for i, (label, said) in enumerate(answers)
                )
        if report:
            figures.save(figures.samples(np.zeros((2, 8, 8, 3), np.uint8), CLASSES[1:]), folder / "samples.png")
            write_pictures(Finished(folder, lines, result, root.joinpath))
            write_report(folder, result)
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        return folder

    return make


def _pictures(root: Path, count: int) -> Path:
    root.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (20, 12 + number), (number * 20, 90, 120)).save(root / f"{number}.png")
    return root
