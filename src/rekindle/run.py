"""A run folder: what stands in it before training, and what a finished one can do."""

import copy
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn

from rekindle import models
from rekindle.analysis import summarize
from rekindle.analysis.calibration import at_temperature
from rekindle.analysis.familiarity import Familiarity
from rekindle.analysis.features import FeatureReader
from rekindle.data import Dataset, Picture, Undecodable, find_images, open_data
from rekindle.data.formats.columns import ColumnNames
from rekindle.data.formats.names import is_hidden, not_text
from rekindle.data.formats.open import survey
from rekindle.data.formats.outputs import is_output
from rekindle.data.given import Given, Readable, given_pictures
from rekindle.data.samples import Preprocessing
from rekindle.errors import UserError, agree, number_of
from rekindle.files import csv_lines, embed, expand, write_parts
from rekindle.method import Method, Source, noop
from rekindle.records import (
    DATA,
    ENVIRONMENT,
    MODEL,
    package_versions,
    read_history,
    read_recipe,
    read_result,
    read_spec,
    write_spec,
)
from rekindle.registry import parse
from rekindle.spec import Count, RunSpec, check_value
from rekindle.tuner.net import operate

BATCH = 64
UNSURE = 0.05
OpenShare = Annotated[float, Interval(gt=0, lt=1)]


@dataclass(frozen=True)
class Prediction:
    """What the network predicts for one picture.

    Attributes:
        path: The file; of pictures in memory their place in what was given, such as "[3]".
        classes: The most probable classes, best first; empty where there is an error.
        confidences: Their probabilities.
        error: Why the file could not be read, or has no finite outputs; else "".
        unsure: Whether it looks like none of the classes or is too close to call; None where that was not asked, or there is an error.
    """

    path: str
    classes: list[str]
    confidences: list[float]
    error: str = ""
    unsure: bool | None = None


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Its folder.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", expand(self.folder))
        if not self.folder.is_dir():
            raise UserError(f"there is no run folder {self.folder}; name one that rekindle fit made.")

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value}" for name, value in self._figures().items())
        return f"Run({str(self.folder)!r}: {figures or 'not finished'})"

    def _repr_html_(self) -> str:
        """What a notebook shows: figures, curves, and a link to the report."""
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._figures().items())
        curves, report = self.folder / "curves.svg", self.folder / "report.html"
        picture = (
            f'<img src="{embed(curves.read_bytes(), "svg+xml")}" style="width: 40em" alt="Learning curves">' if curves.is_file() else ""
        )
        link = f'<a href="{escape(quote(report.as_posix()))}">report</a>' if report.is_file() else "not finished"
        return f"<div><b>{escape(self.folder.name)}</b> &nbsp; {link}<table>{rows}</table>{picture}</div>"

    def _figures(self) -> dict[str, str]:
        """Method, network and accuracies in words; nothing of a run that has not finished, or whose result is damaged."""
        try:
            result = self.result
        except UserError:
            return {}
        probe = result.get("probe") or {}
        found = {"method": result["method"], "network": result["model"]}
        for split in ("val", "test"):
            if split in result:
                against = f", linear probe {100 * probe[split]['accuracy']:.1f} %" if split in probe else ""
                found[split] = f"{100 * result[split]['accuracy']:.1f} % of {result[split]['count']}{against}"
        return found

    @cached_property
    def result(self) -> dict[str, Any]:
        """What result.json holds."""
        return {**read_result(self.folder)}

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl, one an epoch; a soup has none."""
        if "soup" in self.result:
            return []
        return [{**line} for line in read_history(self.folder)]

    @cached_property
    def model(self) -> tuple[nn.Module, dict[str, Any]]:
        """The trained network in evaluation mode, and its recipe. Surgery is repeated, so that the weights find their places."""
        # Surgery is the same under the defaults of any version, so what 0.1 wrote stays readable.
        with MODEL.surprises(self.folder / "model.json"):
            methods = parse(read_recipe(self.folder).get("method", "none"), "0.1")
        surgeons = [method for method in methods if type(method).surgery is not Method.surgery]

        def repeat(module: nn.Module, before: nn.Module, head: list[str], recipe: dict[str, Any]) -> None:
            operate(module, surgeons, Source(before), head)

        return models.load_model(self.folder, repeat if surgeons else None)

    @cached_property
    def familiarity(self) -> Familiarity:
        """What it knows of its own pictures, to tell strangers by."""
        return Familiarity.read(self.folder)

    def predict(
        self, pictures: Given | Sequence[Given], top_k: int = 1, *, unsure: bool | float = False, tta: bool = False,
        progress: Callable[[int, int], object] = noop,
    ) -> list[Prediction]:  # fmt: skip
        """Classify pictures, on the GPU where there is one; a picture that cannot be read gets its row with the reason.

        Args:
            pictures: Picture files, folders (all files below but documents and hidden ones), PIL images, arrays (H, W, 3) or (H, W) of
                uint8, an array of several, or a list of such things.
            top_k: How many classes a picture, at least 1; at most all are given.
            unsure: Say which pictures are unsure; a number is the share of the classes' own pictures that may be, True 0.05.
            tta: Average the probabilities of the picture and of its mirror image. What is unsure is told by the picture alone, as the
                threshold was chosen.
            progress: Told (done, total).

        Returns:
            One `Prediction` a picture, in order.

        Raises:
            UserError: If `unsure` is asked of a run that has no threshold, or `tta` of one that was trained without mirror images.
        """
        check_value("--top-k", top_k, Count)
        self._check_mirror(tta)
        threshold = None if unsure is False else self.familiarity.threshold(unsure_share(unsure))
        named = given_pictures(pictures)
        found: list[Prediction] = []
        for start in range(0, len(named), BATCH):
            found += self._predict(named[start : start + BATCH], top_k, threshold, tta)
            progress(len(found), len(named))
        return found

    def evaluate(
        self, data: str | Path | None = None, *, tta: bool = False, progress: Callable[[int, int], object] = noop
    ) -> dict[str, Any]:
        """Figures (see `rekindle.analysis.summarize`) on other labelled pictures, whose classes bear the run's names.

        Args:
            data: A folder of class folders, or anything else that `rekindle fit` takes; of data with splits the test split is measured,
                or, without one, the validation split. None measures the run's own test split again, or validation where it has none.
            tta: Average the probabilities of each picture and of its mirror image.
            progress: Told (done, total).

        Returns:
            The figures, as result.json holds those of a split.

        Raises:
            UserError: For a class that the run does not know, pictures that cannot be read, outputs that are not finite, or `tta` where
                the run was trained without mirror images.
        """
        self._check_mirror(tta)
        classes, spec = self.model[1]["classes"], read_spec(self.folder)
        if data is None:
            pictures, labels = measured_pictures(spec, classes)
        else:
            pictures, labels = labeled(data, classes, ColumnNames(spec.image_column or "", spec.label_column or ""))
        found: list[Tensor] = []
        errors: dict[Picture, str] = {}
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            pixels, faults = self._pixels(part)
            errors |= {part[place]: why for place, why in faults.items()}
            if not errors:
                found.append(self.probabilities(pixels, tta=tta))
            progress(start + len(part), len(pictures))
        if errors:
            raise UserError(
                "\n".join(
                    [
                        f"{number_of(len(errors), 'image')} cannot be read; repair or remove {agree(len(errors), 'it')}:",
                        *(f"  {p}: {why}" for p, why in errors.items()),
                    ]
                )
            )
        probabilities = torch.cat(found)
        broken = int((~probabilities.isfinite().all(1)).sum())
        if broken:
            raise UserError(
                f"the network's outputs are not finite for {broken} of {number_of(len(labels), 'picture')}; train the run again at a lower --lr."
            )
        return summarize(probabilities, labels, classes)

    def _check_mirror(self, tta: bool) -> None:
        if tta and not read_spec(self.folder).flip:
            raise UserError(f"{self.folder} was trained with --no-flip, as where a mirror image is of another class; leave --tta out.")

    def _predict(self, named: list[tuple[str, Readable]], top_k: int, threshold: float | None, tta: bool) -> list[Prediction]:
        pixels, errors = self._pixels([picture for _, picture in named])
        rows = self._answers(pixels, threshold, tta) if pixels else iter(())
        names = self.model[1]["classes"]
        found = []
        for place, (name, _) in enumerate(named):
            if place in errors:
                found.append(Prediction(name, [], [], errors[place]))
                continue
            row, unsure = next(rows)
            if not row.isfinite().all():
                found.append(Prediction(name, [], [], "the network's outputs for it are not finite"))
                continue
            best = row.topk(min(top_k, len(names)))
            found.append(Prediction(name, [names[i] for i in best.indices], [round(float(v), 6) for v in best.values], unsure=unsure))
        return found

    def _answers(self, pixels: list[np.ndarray], threshold: float | None, tta: bool) -> Iterator[tuple[Tensor, bool | None]]:
        """Probabilities (C,) of each picture, and whether it is unsure."""
        if threshold is None:
            return ((row, None) for row in self.probabilities(pixels, tta=tta))
        with FeatureReader(self._placed) as reader:
            features, outputs = reader.read(self._inputs(pixels))
        probabilities = at_temperature(outputs.cpu(), self.model[1]["temperature"])
        doubtful = self.familiarity.of(features.cpu(), probabilities) <= threshold
        probabilities = self._with_mirror(pixels, probabilities) if tta else probabilities
        return zip(probabilities, doubtful.tolist(), strict=True)

    def _pixels(self, pictures: Sequence[Readable]) -> tuple[list[np.ndarray], dict[int, str]]:
        """Those that can be read, and why the others cannot, by their places."""
        preprocessing = Preprocessing.from_recipe(self.model[1])
        pixels, errors = [], {}
        for place, picture in enumerate(pictures):
            try:
                pixels.append(preprocessing.pixels(picture))
            except (Undecodable, OSError) as error:
                errors[place] = str(error)
        return pixels, errors

    def probabilities(self, pixels: list[np.ndarray], *, tta: bool = False) -> Tensor:
        """(N, C) of pictures (S, S, 3) uint8 as `Preprocessing.pixels` gives them; `tta` averages those of the mirror images in.

        Args:
            pixels: One array a picture, (S, S, 3) uint8.
            tta: Whether to average the answers for each picture and its mirror image.

        Returns:
            (N, C) float32 on the CPU, rows of sum 1, at the run's temperature.
        """
        with torch.no_grad():
            outputs: Tensor = self._placed(self._inputs(pixels))
        found = at_temperature(outputs.cpu(), self.model[1]["temperature"])
        return self._with_mirror(pixels, found) if tta else found

    def _with_mirror(self, pixels: list[np.ndarray], found: Tensor) -> Tensor:
        """The mean of probabilities and those of the mirror images."""
        return (found + self.probabilities([np.flip(picture, 1) for picture in pixels])) / 2

    @cached_property
    def _placed(self) -> nn.Module:
        """The network where it is quickest; that of `model` stays where it is, for whoever goes on with it."""
        module = self.model[0]
        return copy.deepcopy(module).to("cuda") if torch.cuda.is_available() else module

    def _inputs(self, pixels: list[np.ndarray]) -> Tensor:
        device = next(self._placed.parameters()).device
        return Preprocessing.from_recipe(self.model[1]).normalize(np.stack(pixels)).to(device)


def unsure_share(unsure: bool | float) -> float:
    """The share of a run's own pictures that may be unsure; True stands for the usual one.

    Returns:
        A share from 0 to 1.
    """
    share = UNSURE if unsure is True else unsure
    check_value("--unsure", share, OpenShare)
    return float(share)


def measured_pictures(spec: RunSpec, classes: list[str]) -> tuple[list[Picture], Tensor]:
    """The pictures that a run was measured on, and their labels.

    Returns:
        (pictures, labels (N,) int64), those of the split that the run was measured on last.

    Raises:
        UserError: If they are no longer there, or have other classes now.
    """
    dataset = open_data(spec.data, **spec.data_options())
    if dataset.classes != classes:
        raise UserError(
            f"the classes of {spec.data} are no longer those of the run, {', '.join(classes)}; name the pictures to measure it on."
        )
    split = dataset.splits["test" if spec.test and "test" in dataset.splits else "val"]
    return split.paths, split.labels


def labeled(data: str | Path, classes: list[str], asked: ColumnNames) -> tuple[list[Picture], Tensor]:
    """Pictures and their labels among the run's classes; a class may be absent, but none may be unknown.

    Returns:
        (pictures, labels (N,) int64).
    """
    data = data if str(data).startswith("hf:") else expand(data)
    folder = Path(data)
    below = [entry for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)] if folder.is_dir() else []
    names = sorted(entry.name for entry in below if not is_output(entry))
    if names and set(names) <= set(classes):
        found: dict[str, Sequence[Picture]] = {name: find_images([folder / name]) for name in names}
    else:
        seen = survey(data, asked)
        found = {**seen.found[next((name for name in ("test", "val") if seen.found.get(name)), "train")]}
        unknown = [name for name in found if name not in classes]
        for name in unknown:
            if why := not_text(name):
                raise UserError(f"{folder / name}: {why}.")
        if unknown:
            raise UserError(
                f"{data} has the classes {', '.join(unknown)}, which the run does not know; its classes are {', '.join(classes)}."
            )
        seen.findings.raise_if_any()
    labels = [classes.index(name) for name, pictures in found.items() for _ in pictures]
    return [picture for pictures in found.values() for picture in pictures], torch.tensor(labels)


def open_folder(folder: Path, run_id: str, spec: RunSpec, dataset: Dataset) -> None:
    """Write what is known before training: environment, data and, last, the spec."""
    ENVIRONMENT.write(folder / "environment.json", {"run": run_id, "options": spec.options_hash(), **environment()})
    DATA.write(folder / "data.json", dataset.to_json())
    write_spec(folder, spec)


def environment() -> dict[str, Any]:
    """Versions and machine, for whoever runs it again.

    Returns:
        Plain values by name, as environment.json holds them.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(), "platform": platform.platform(), "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": device, "packages": package_versions(),
    }  # fmt: skip


def write_predictions(folder: Path, dataset: Dataset, found: dict[str, Tensor]) -> None:
    """predictions.csv: a row for each picture of each evaluated split."""

    def rows() -> Iterator[list[Any]]:
        for name, probabilities in found.items():
            split = dataset.splits[name]
            for path, label, row in zip(split.paths, split.labels.tolist(), probabilities, strict=True):
                best = int(row.argmax())
                shares = [f"{share:.6f}" for share in row.tolist()]
                yield [
                    name,
                    dataset.relative(path),
                    dataset.classes[label],
                    dataset.classes[best],
                    shares[best],
                    int(best == label),
                    *shares,
                ]

    header = ["split", "path", "label", "prediction", "confidence", "correct", *(f"p_{name}" for name in dataset.classes)]
    write_parts(folder / "predictions.csv", csv_lines(header, rows()))
