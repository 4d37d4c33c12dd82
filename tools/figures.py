"""Draw the figures of the science pages from the CSV files of docs/results, and from rekindle's own schedule: `python tools/figures.py`."""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

import rekindle
from rekindle.report.colors import BLUE, GREEN, GREY, RED, method_color
from rekindle.tuner.head_rate import KAPPA

ROOT = Path(__file__).resolve().parents[1]
RESULTS, OUT = ROOT / "docs/results", ROOT / "docs/science"
MOMENTUM = 0.9
METHODS = {"Dropout": "dropout", "Cyclic LR": "cyclic_lr", "Disturb Label": "disturb_label", "RIFLE": "rifle", "RIFLE-A": "rifle_a", "RIFLE-B": "rifle_b", "DTNH": "dtnh"}  # fmt: skip
STEPS = {  # Steps after the restart, as the table of the small study has them.
    ("signed digits, ResNet-56", "10"): 60, ("signed digits, ResNet-56", "30"): 160, ("clothes, ResNet-56", "30"): 200,
    ("clothes, SqueezeNet", "30"): 200, ("clothes, ResNet-56", "60"): 380, ("clothes, ResNet-56", "0"): 1920,
}  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save(name: str) -> None:
    plt.savefig(OUT / f"{name}.svg", bbox_inches="tight", facecolor="white", metadata={"Date": None})
    plt.close()


def loss_of_head(length: float, rate: float, steps: int = 100) -> float:
    """Training loss of a linear head on made-up features, three classes, after `steps` steps."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = torch.randn(3, 64, generator=stream)[labels] + 4.0 * torch.randn(300, 64, generator=stream)
    features *= (length / features.square().sum(1).mean()).sqrt()
    head = torch.nn.Linear(64, 3)
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=MOMENTUM)
    losses = []
    for step in range(steps):
        batch = torch.randperm(300, generator=stream)[:32]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features[batch]), labels[batch]).backward()
        optimizer.step()
        if step >= steps - 10:
            losses.append(float(torch.nn.functional.cross_entropy(head(features), labels).detach()))
    return min(sum(losses) / len(losses), 1.5)


def head_rate() -> None:
    _, (left, right) = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for length, color in ((10.0, GREEN), (100.0, BLUE), (1000.0, RED)):
        kappas = [10 ** (k / 4) for k in range(-4, 14)]
        losses = [loss_of_head(length, kappa * (1 - MOMENTUM) / length) for kappa in kappas]
        left.plot([kappa * (1 - MOMENTUM) / length for kappa in kappas], losses, ".-", color=color)
        right.plot(kappas, losses, ".-", color=color, label=f"{length:g}")
    right.legend(title="E||f||² of the features", frameon=False, fontsize=8, title_fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    right.axvline(KAPPA, color=GREY, linestyle="--")
    right.text(KAPPA * 1.2, 0.95, f"rekindle: {KAPPA:g}", color=GREY, fontsize=8, va="top", transform=right.get_xaxis_transform())
    for axes, label in ((left, "learning rate of the head"), (right, "kappa")):
        axes.set(xscale="log", xlabel=label)
    left.set_ylabel("training loss after 100 steps")
    save("head_rate")


def rifle_schedule() -> None:
    source, model = rekindle.load("tiny", classes=3, weights="none")
    tuner = rekindle.Tuner(model, [rekindle.L2(), rekindle.Rifle(periods=2)], source=source, epochs=40, steps_per_epoch=1)
    optimizer = torch.optim.SGD(tuner.param_groups(lr=0.01), momentum=MOMENTUM)
    scheduler = tuner.scheduler(optimizer)
    rates: dict[str, list[float]] = {"backbone": [], "head": []}
    for epoch in range(tuner.epochs):
        tuner.start_epoch(epoch)
        for name, group in (("backbone", optimizer.param_groups[0]), ("head", optimizer.param_groups[-1])):
            rates[name].append(group["lr"])
        tuner.loss(model, torch.zeros(3, 3, 32, 32), torch.arange(3), torch.nn.functional.cross_entropy).backward()
        tuner.gradients_()
        optimizer.step()
        scheduler.step()
    plt.figure(figsize=(6, 2.6))
    for name, color in (("backbone", BLUE), ("head", RED)):
        plt.step(range(1, tuner.epochs + 1), rates[name], where="mid", color=color, label=name)
    plt.axvline(20.5, color=GREY, linestyle="--")
    plt.text(20, 0.0102, "the head is drawn anew", color=GREY, fontsize=8, ha="right", va="top")
    plt.gca().set(xlabel="epoch", ylabel="learning rate")
    plt.legend(frameon=False, fontsize=8, loc="lower left")
    save("rifle_schedule")


def points(value: str) -> float:
    return 100 * float(value)


def interval(axes: Axes, row: dict[str, str], y: float, color: str, *, vertical: bool = False) -> None:
    """A point with its interval; filled where it is significant."""
    mean, low, high = (points(row[name]) for name in ("difference", "low", "high"))
    face = color if float(row["p_holm"]) < 0.05 else "white"
    where, size = ((y, mean), {"yerr": [[mean - low], [high - mean]]}) if vertical else ((mean, y), {"xerr": [[mean - low], [high - mean]]})
    axes.errorbar(*where, **size, fmt="o", color=color, mfc=face, markersize=5, linewidth=1.2)


def rifle_steps() -> None:
    _, axes = plt.subplots(figsize=(6, 3))
    for row in rows("small_study/table.csv"):
        steps = STEPS.get((row["task"], row["size"]))
        if row["method"] == "RIFLE" and row["regularizer"] == "L2" and steps:
            where = steps * (1.06 if "SqueezeNet" in row["task"] else 1)
            interval(axes, row, where, GREEN if "SqueezeNet" in row["task"] else RED, vertical=True)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axvline(200, color=GREY, linestyle="--", linewidth=0.8)
    axes.text(195, 4.2, "warned below", color=GREY, fontsize=8, ha="right")
    for label, color in (("ResNet-56", RED), ("SqueezeNet", GREEN)):
        axes.plot([], [], "o", color=color, label=label)
    axes.legend(frameon=False, fontsize=8, loc="lower center")
    axes.set(xscale="log", xlabel="steps after the restart", ylabel="RIFLE - plain (points)")
    axes.set_xticks([60, 160, 380, 1920], ["60", "160", "380", "1,920"], minor=False)
    axes.minorticks_off()
    save("rifle_steps")


def differences() -> None:
    table = [row for row in rows("small_study/table.csv") if row["method"] in METHODS and row["difference"]]
    settings = list(dict.fromkeys((row["regularizer"], row["task"], row["size"]) for row in table if row["method"] == "DTNH"))
    _, panels = plt.subplots(1, len(METHODS), figsize=(9, 2.8), sharey=True)
    for axes, (method, name) in zip(panels, METHODS.items(), strict=True):
        for row in table:
            key = (row["regularizer"], row["task"], row["size"])
            if row["method"] == method and key in settings:
                interval(axes, row, -settings.index(key), method_color(name))
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_title(method, fontsize=8)
        axes.set_xlim(-16, 8)
        axes.tick_params(labelsize=7)
    names = [f"{task}, {size} a class{', L2-SP' if regularizer == 'L2-SP' else ''}" for regularizer, task, size in settings]
    panels[0].set_yticks([-place for place in range(len(settings))], names, fontsize=7)
    plt.gcf().supxlabel("difference from plain fine-tuning (points)", fontsize=8, y=-0.04)
    save("differences")


def defaults() -> None:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows("defaults/runs_64.csv"):
        if row["run"] in ("0.1.0", "default"):
            found[row["task"], row["run"]].append(points(row["test"]))
        if row["run"] == "default" and row["probe_test"]:
            found[row["task"], "probe"].append(points(row["probe_test"]))
    tasks = list(dict.fromkeys(task for task, _ in found))
    plt.figure(figsize=(6, 2.8))
    for run, label, color, mark in (
        ("0.1.0", "rekindle 0.1.0", GREY, "s"),
        ("probe", "linear probe", GREEN, "^"),
        ("default", "default", BLUE, "o"),
    ):
        for place, task in enumerate(tasks):
            values = found[task, run]
            plt.plot(values, [-place] * len(values), mark, color=color, alpha=0.45, markersize=4)
            plt.plot([sum(values) / len(values)], [-place], mark, color=color, markersize=8, label=label if not place else None)
    plt.yticks([-place for place in range(len(tasks))], tasks, fontsize=8)
    plt.xlabel("test accuracy (%): runs, and their mean")
    plt.legend(frameon=False, fontsize=8, loc="upper left")
    save("defaults")


def main() -> None:
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "rekindle", "font.size": 9})
    for draw in (head_rate, rifle_schedule, rifle_steps, differences, defaults):
        draw()


if __name__ == "__main__":
    main()
