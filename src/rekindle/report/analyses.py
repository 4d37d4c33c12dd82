"""Analyses of finished runs: gradient norms and learning curves by epoch, and how far each layer has travelled. It trains nothing."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from rekindle import models
from rekindle.analysis.weight_distance import relative, weight_distance
from rekindle.errors import UserError
from rekindle.files import csv_text, write_atomic
from rekindle.records import MODEL, read_recipe, read_spec
from rekindle.report.colors import method_styles
from rekindle.report.figures import STYLE, save
from rekindle.report.format import place_name, split_title
from rekindle.run import Run

LABEL_ROOM = 0.05  # Share of the layers that a stage must have for its name to fit below it.
BATCHES = {"first": "first batch", "mean": "all batches"}


@dataclass(frozen=True)
class Analysis:
    """What an analysis found.

    Attributes:
        name: Of its files.
        header: Columns of the short table.
        rows: The short table, as text.
        values: Every number, one dict a line of the CSV file.
        figure: The picture.
        notes: Sentences to read with it.
    """

    name: str
    header: list[str]
    rows: list[list[str]]
    values: list[dict[str, Any]]
    figure: Figure
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> list[Path]:
        """Write NAME.png and NAME.csv into a folder, made if absent; their paths.

        Returns:
            The two paths.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{self.name}.csv", csv_text(list(self.values[0]), [row.values() for row in self.values]))
        save(self.figure, folder / f"{self.name}.png")
        return [folder / f"{self.name}.png", folder / f"{self.name}.csv"]


def analyze(kind: str, folders: Sequence[str | Path]) -> Analysis:
    """One of `ANALYSES` on run folders.

    Returns:
        Figure and numbers.

    Raises:
        UserError: If a run has not finished, or did not record what the analysis needs.
    """
    runs = [Run(Path(folder)) for folder in folders]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise UserError("a run folder is named twice; name each once.")
    soups = [run.folder for run in runs if "soup" in run.result]
    if soups:
        raise UserError(f"{soups[0]} is a soup of finished runs and had no epochs to analyze; name the runs that it was made of.")
    return ANALYSES[kind](runs, run_labels(runs))


def run_labels(runs: Sequence[Run]) -> list[str]:
    """A short name for each run: its method, with model, data and seed where those differ, or its folder where that is not enough.

    Returns:
        One name a run, no two alike.
    """
    parts = [
        [
            run.result["method"],
            run.result.get("direction", ""),
            run.result["model"],
            place_name(run.result["data"]),
            f"seed {run.result['seed']}",
        ]
        for run in runs
    ]
    told = [0, *(i for i in range(1, 5) if len({part[i] for part in parts}) > 1)]
    labels = [", ".join(part[i] for i in told) for part in parts]
    many = Counter(labels)
    return [label if many[label] == 1 else run.folder.name for label, run in zip(labels, runs, strict=True)]


def gradient_norms(runs: Sequence[Run], labels: list[str]) -> Analysis:
    """Figure 2 of the RIFLE paper: norm of the loss's gradient at the last 3x3 convolution of each stage, by epoch.

    Returns:
        Figure and numbers.
    """
    found = [_recorded(run, "gradient_norms") for run in runs]
    layers = list(dict.fromkeys(layer for history in found for layer in history[0]))
    values = [
        {"run": label, "epoch": epoch + 1, "restarted": int(run.history[epoch]["restarted"]), "layer": layer, **norms}
        for run, label, history in zip(runs, labels, found, strict=True)
        for epoch, line in enumerate(history)
        for layer, norms in line.items()
    ]
    rows = []
    for run, label, history in zip(runs, labels, found, strict=True):
        restarts = [line["epoch"] for line in run.history if line["restarted"]]
        for layer in history[0]:
            for key, batches in BATCHES.items():
                fall, jumps = fall_and_jumps([line[layer][key] for line in history], restarts)
                rows.append([label, layer, batches, f"{fall:.2g}", ", ".join(f"{jump:.2g}" for jump in jumps) or "-"])
    fell = "fell to: mean norm of the last third of the epochs, as a share of the first epoch's."
    note = f"{fell} jumps: norm in the epoch of a restart over that of the epoch before."
    return Analysis(
        "gradient_norms", ["run", "layer", "norm of", "fell to", "jumps"], rows, values, _norms_figure(runs, labels, found, layers), [note]
    )


def fall_and_jumps(norms: Sequence[float], restarts: Sequence[int]) -> tuple[float, list[float]]:
    """Mean of the last third over the first value, and for each restart its value over the one before; inf where that is 0.

    Returns:
        (share of the first value, a factor for each restart).
    """
    tail = norms[-max(1, len(norms) // 3) :]
    return _ratio(sum(tail) / len(tail), norms[0]), [_ratio(norms[epoch], norms[epoch - 1]) for epoch in restarts if epoch]


def learning_curves(runs: Sequence[Run], labels: list[str]) -> Analysis:
    """Figure 1 of the RIFLE paper: training accuracy, and that on the watched test split, by epoch; else on the validation split.

    Returns:
        Figure and numbers.
    """
    split = "watched_test" if all("watched_test" in run.history[0] for run in runs) else "val"
    lacking = [label for run, label in zip(runs, labels, strict=True) if split not in run.history[0]]
    if lacking:
        raise UserError(f"{lacking[0]} measured no validation split; train with --test-every-epoch, or with a --val-fraction above 0.")
    title = split_title(split)
    values = [
        {
            "run": label,
            "epoch": line["epoch"] + 1,
            "restarted": int(line["restarted"]),
            "train_accuracy": line["train"]["accuracy"],
            f"{split}_accuracy": line[split]["accuracy"],
        }
        for run, label in zip(runs, labels, strict=True)
        for line in run.history
    ]
    rows = []
    for run, label in zip(runs, labels, strict=True):
        accuracies = [100 * line[split]["accuracy"] for line in run.history]
        rows.append([label, f"{100 * run.history[-1]['train']['accuracy']:.1f} %", f"{accuracies[-1]:.1f} %", f"{max(accuracies):.1f} %"])
    notes = (
        ["the best epoch on the test split chose nothing and is no result."]
        if split == "watched_test"
        else ["train with --test-every-epoch for the test split."]
    )
    header = ["run", "training, last epoch", f"{title}, last epoch", f"{title}, best epoch"]
    return Analysis("learning_curves", header, rows, values, _curves_figure(runs, labels, split, title), notes)


def weight_distances(runs: Sequence[Run], labels: list[str]) -> Analysis:
    """Distance of each layer of the trained network from its pre-trained weights, as a share of their norm.

    Returns:
        Figure and numbers.
    """
    travels = [_distance_of_run(run) for run in runs]
    values = [
        {"run": label, "stage": stage, "layer": layer, **moved, "relative": _ratio(moved["distance"], moved["norm"])}
        for label, stages in zip(labels, travels, strict=True)
        for stage, layers in stages.items()
        for layer, moved in layers.items()
    ]
    names = list(dict.fromkeys(stage for stages in travels for stage in stages))
    rows = [
        [
            label,
            *(f"{100 * relative(stages[name]):.1f} %" if name in stages else "-" for name in names),
            f"{100 * relative(_flat(stages)):.1f} %",
        ]
        for label, stages in zip(labels, travels, strict=True)
    ]
    return Analysis("weight_distance", ["run", *names, "all"], rows, values, _distance_figure(runs, labels, travels))


Kind = Callable[[Sequence[Run], list[str]], Analysis]
ANALYSES: dict[str, Kind] = {"gradient-norms": gradient_norms, "learning-curves": learning_curves, "weight-distance": weight_distances}


def _recorded(run: Run, name: str) -> list[dict[str, Any]]:
    run.result  # noqa: B018  A run that has not finished says so here.
    if any(name not in line.get("analysis", {}) for line in run.history):
        raise UserError(f"{run.folder} did not record it; train it again with --record {name}.")
    return [line["analysis"][name] for line in run.history]


def _distance_of_run(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    """{stage: {layer: distance and norm}} of the stored network, from weights built again as the run did."""
    run.result  # noqa: B018
    spec, recipe = read_spec(run.folder), read_recipe(run.folder)
    if spec.weights == "none":
        raise UserError(f"{run.folder} was trained from random weights, so there is nothing to travel from.")
    with torch.random.fork_rng(devices=[]):
        module = models.build(spec.model, weights=spec.weights, image_size=spec.image_size or 0).module
    start, end = dict(module.named_parameters()), models.read_model(run.folder)
    head = tuple(f"{name}." for name in recipe.get("head_modules", []))
    stages = models.stages(module, models.find_classifier(module))
    kept = {stage: {name: end[name] for name in names if name in end and not name.startswith(head)} for stage, names in stages.items()}
    if any(end[name].shape != start[name].shape for names in kept.values() for name in names):
        raise MODEL.damaged(run.folder / "model.json", f"its weights are not those of {spec.model}, which spec.yaml names")
    return {stage: weight_distance(tensors, start) for stage, tensors in kept.items() if tensors}


def _flat(stages: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {layer: moved for layers in stages.values() for layer, moved in layers.items()}


def _ratio(value: float, base: float) -> float:
    if base:
        return value / base
    return float("inf") if value else 0.0


def _look(runs: Sequence[Run], place: int) -> dict[str, Any]:
    color, dashes = method_styles([run.result["method"] for run in runs])[place]
    return {"color": color, "linestyle": dashes}


def _norms_figure(runs: Sequence[Run], labels: list[str], found: list[list[dict[str, Any]]], layers: list[str]) -> Figure:
    columns = min(len(layers), 4)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.0, 3.0 * columns), 3.2 * -(-len(layers) // columns) + 0.3 * len(runs)), layout="constrained")
        panels = figure.subplots(-(-len(layers) // columns), columns, squeeze=False, sharey=True)
        for panel, layer in zip(panels.flat, layers, strict=False):
            for place, (run, label, history) in enumerate(zip(runs, labels, found, strict=True)):
                lines = [(line["epoch"] + 1, values[layer]) for line, values in zip(run.history, history, strict=True) if layer in values]
                epochs = [epoch for epoch, _ in lines]
                panel.plot(epochs, [value["mean"] for _, value in lines], label=label, **_look(runs, place))
                panel.plot(epochs, [value["first"] for _, value in lines], ".", color=_look(runs, place)["color"], alpha=0.6)
                _restarts(panel, run, _look(runs, place)["color"])
            panel.set_yscale("log")
            # Matplotlib would write powers as mathematics, which these figures do not read.
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.set_title(layer)
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for panel in panels.flat[len(layers) :]:
            panel.set_axis_off()
        _legend(figure, panels.flat[0])
        figure.suptitle(
            "norm of the loss's gradient: mean over the epoch's batches (line), first batch (dots)", fontsize=10, x=0.01, ha="left"
        )
    return figure


def _curves_figure(runs: Sequence[Run], labels: list[str], split: str, title: str) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4 + 0.25 * len(runs)), layout="constrained")
        for panel, key, name in zip(figure.subplots(1, 2), ("train", split), ("training", title), strict=True):
            for place, (run, label) in enumerate(zip(runs, labels, strict=True)):
                panel.plot(
                    [line["epoch"] + 1 for line in run.history],
                    [100 * line[key]["accuracy"] for line in run.history],
                    label=label,
                    **_look(runs, place),
                )
                _restarts(panel, run, _look(runs, place)["color"])
            panel.set_title(f"{name} accuracy (%)")
            panel.set_xlabel("epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(figure, panel)
    return figure


def _distance_figure(runs: Sequence[Run], labels: list[str], travels: list[dict[str, dict[str, dict[str, float]]]]) -> Figure:
    walks = [[line["analysis"]["weight_distance"] for line in run.history if "weight_distance" in line.get("analysis", {})] for run in runs]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11 if any(walks) else 7.5, 4 + 0.25 * len(runs)), layout="constrained")
        panels = figure.subplots(1, 2 if any(walks) else 1, squeeze=False, width_ratios=(2, 1) if any(walks) else None)[0]
        for place, (label, stages) in enumerate(zip(labels, travels, strict=True)):
            shares = [100 * _ratio(moved["distance"], moved["norm"]) for moved in _flat(stages).values()]
            panels[0].plot(np.where(np.isfinite(shares), shares, np.nan), ".", label=label, color=_look(runs, place)["color"])
        starts = np.cumsum([0, *(len(layers) for layers in travels[0].values())])
        shown = [place for place in range(len(travels[0])) if starts[place + 1] - starts[place] > LABEL_ROOM * starts[-1]]
        panels[0].set_xticks(starts[:-1])
        panels[0].set_xticklabels([name if place in shown else "" for place, name in enumerate(travels[0])], ha="left")
        panels[0].set_title("distance of each layer from its pre-trained weights (% of their norm)")
        panels[0].set_xlabel("layer, from input to output; a tick begins a stage")
        for place, (run, walk) in enumerate(zip(runs, walks, strict=True)):
            if walk:
                panels[1].plot(range(1, len(walk) + 1), [100 * relative(layers) for layers in walk], **_look(runs, place))
                _restarts(panels[1], run, _look(runs, place)["color"])
                panels[1].set_title("all layers, by epoch (%)")
                panels[1].set_xlabel("epoch")
                panels[1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for panel in panels:
            panel.set_ylim(bottom=0)
        _legend(figure, panels[0])
    return figure


def _restarts(panel: Axes, run: Run, color: str) -> None:
    for line in run.history:
        if line["restarted"]:
            panel.axvline(line["epoch"] + 0.5, color=color, linestyle=(0, (2, 3)), linewidth=0.8)


def _legend(figure: Figure, panel: Axes) -> None:
    lines, names = panel.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=1 if max(map(len, names)) > 45 else min(3, len(names)))
