"""`--model auto`: the network that is installed with rekindle, or one that was downloaded before and suits the pictures better.

All are compared by a linear probe, cross-validated on features of training pictures; validation and test pictures are not looked at.
Everything that is compared is the same on every process of a run: no time is measured.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from rekindle import data as data_room
from rekindle import models
from rekindle.analysis.linear_probe import fit_probe
from rekindle.data.samples import Preprocessing, Samples
from rekindle.errors import UserError
from rekindle.fitting.look import COMPARED, chosen_rows, features_at
from rekindle.models import boxed
from rekindle.models.at_hand import cached_networks, multiply_adds
from rekindle.records import read_recipe
from rekindle.spec import AUTO, RunSpec
from rekindle.training.listener import Listener

RIVALS = 4  # Beside the installed network; those of most work, which know most as a rule.
MOST_WORK = {"cpu": 2e9, "cuda": 2e10}  # Multiply-adds a picture: a ResNet-18 on a processor, a ViT-B/16 on a GPU.


def with_model(
    spec: RunSpec, *, listener: Listener, cache: bool = True, device: str = "auto", dataset: data_room.Dataset | None = None
) -> RunSpec:
    """The run with the name of a network in the place of "auto", so that its id and its resumption rest on nothing that may change.

    Args:
        spec: A run.
        listener: Told in a line which network is taken, and why.
        cache: Keep decoded pictures for the run itself.
        device: Where the run is to train; decides how much work a network may be.
        dataset: The spec's data, where they are open; None opens them if they are needed.

    Raises:
        UserError: If the weights of the installed network are not, or weights are given by a file that does not say whose they are.
    """
    if spec.model != AUTO:
        return spec
    if spec.weights not in ("default", "none"):
        return replace(spec, model=_named_beside(Path(spec.weights)))
    boxed.check_installed()
    rivals = [] if spec.weights == "none" or spec.minutes else _rivals(spec.image_size, device)
    accuracies = _accuracies(spec, dataset, [boxed.NAME, *rivals], listener, cache, device) if rivals else {}
    best = max(accuracies, key=lambda name: accuracies[name], default=boxed.NAME)  # Of equals the installed one.
    others = [f"{100 * accuracy:.1f} % on {name}" for name, accuracy in accuracies.items() if name != best]
    told = f"{100 * accuracies[best]:.1f} % right in cross-validation, against {', '.join(others)}" if others else "installed with rekindle"
    listener.note(f"model auto: {best} ({told}).")
    return replace(spec, model=best)


def _named_beside(weights: Path) -> str:
    """The network of a run folder.

    Raises:
        UserError: If it is none.
    """
    if (weights / "model.json").is_file():
        return str(read_recipe(weights)["model"])
    raise UserError(f"--weights {weights} does not say which network it belongs to; name it with --model, such as --model resnet50.")


def _rivals(image_size: int | None, device: str) -> list[str]:
    """Networks that were downloaded before and are no more work than the machine can do: the most work first, and no more than `RIVALS`."""
    most = MOST_WORK["cuda" if _on_gpu(device) else "cpu"]
    work = {}
    for name in cached_networks():
        if name.removesuffix(".in1k") != boxed.NAME:
            try:
                work[name] = multiply_adds(name, image_size)
            except (UserError, RuntimeError, AssertionError, NotImplementedError):  # One that takes no such pictures is no rival.
                continue
    fitting = [name for name in work if work[name] <= most]
    return sorted(fitting, key=lambda name: (-work[name], name))[:RIVALS]


def _accuracies(
    spec: RunSpec, dataset: data_room.Dataset | None, names: Iterable[str], listener: Listener, cache: bool, device: str
) -> dict[str, float]:
    """Of a linear probe on each network's features, cross-validated on training pictures; nothing where a class has but one."""
    split = (dataset or data_room.open_data(spec.data, **spec.data_options())).splits["train"]
    rows = chosen_rows(split.labels, spec.seed)[: max(COMPARED, len(split.labels.unique()))]
    shown = data_room.Split([split.paths[row] for row in rows], split.labels[rows])
    found: dict[str, float] = {}
    for name in names:
        try:
            loaded = models.build(name, image_size=spec.image_size or 0)
        except UserError as error:  # A file in the cache may be damaged.
            listener.note(f"model auto: {name} is out: {error}")
            continue
        accuracy = _probe_accuracy(name, loaded, shown, spec, listener, cache, device)
        if accuracy is not None:
            found[name] = accuracy
    return found


def _probe_accuracy(
    name: str, loaded: models.LoadedModel, shown: data_room.Split, spec: RunSpec, listener: Listener, cache: bool, device: str
) -> float | None:
    how = Preprocessing.of(loaded, spec.image_size or 0)
    kept = data_room.Cache.default() if cache else None
    pixels = data_room.Pixels.load(shown.paths, how.edge, how.interpolation, cache=kept, note=listener.note)
    samples = Samples(pixels, torch.arange(len(shown.paths)), shown.labels, how)
    where = torch.device("cuda" if _on_gpu(device) else "cpu")
    features = features_at(
        loaded.module, samples, None, where, lambda _, done, total: listener.progress(f"looking through {name}", done, total)
    )
    return fit_probe(features, shown.labels).accuracy if features.isfinite().all() else None


def _on_gpu(device: str) -> bool:
    return device in ("auto", "cuda") and torch.cuda.is_available()
