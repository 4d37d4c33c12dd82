"""One call that looks through a labelled set for what is wrong with its labels and pictures; nothing is changed."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from rekindle import data as data_room
from rekindle import models
from rekindle.analysis.cleaning import Cleaning, Issue, improbable_labels, label_errors, members, near_duplicates, outliers, small_grey
from rekindle.data.formats.columns import ColumnNames
from rekindle.data.samples import Preprocessing, Samples
from rekindle.errors import UserError, number_of
from rekindle.fitting.held_out import held_out
from rekindle.fitting.look import features_at
from rekindle.fitting.model_choice import with_model
from rekindle.spec import AUTO, RunSpec
from rekindle.training.listener import Listener, Silent


def clean(
    data: str | Path, *, predictions: str | Path | None = None, model: str = AUTO, weights: str = RunSpec.weights,
    image_size: int | None = None, columns: ColumnNames | None = None, group_pattern: str | None = None,
    listener: Listener | None = None,
) -> Cleaning:  # fmt: skip
    """Find labels that look wrong, outliers and near duplicates, also across splits, with the features of a pre-trained network.

    Args:
        data: As for `rekindle.fit`. A bare folder has the test split that every run takes out of it; the rest is "train".
        predictions: The folder of a cross-validation on these data, whose fine-tuned networks judge the labels of pictures that they
            have not seen; None has linear probes on the features do so.
        model: A network as for `rekindle.fit`.
        weights: As for `rekindle.fit`.
        image_size: Edge of the crop in pixels; None takes what the weights were trained on.
        columns: Names of a table's columns; where one is of groups, no probe judges a picture of a group that it has seen.
        group_pattern: The same by pictures' names, as for `rekindle.fit`.
        listener: Told of progress.

    Raises:
        UserError: For bad input, in one sentence.
    """
    listener = listener or Silent()
    asked = {f"{role}_column": name or None for role, name in asdict(columns or ColumnNames()).items()}
    spec = RunSpec(str(data), model=model, weights=weights, image_size=image_size, val_fraction=0.0, group_pattern=group_pattern, **asked)  # type: ignore[arg-type]
    dataset = data_room.open_data(spec.data, **spec.data_options())
    spec = with_model(spec, listener=listener, dataset=dataset)
    paths = [path for split in dataset.splits.values() for path in split.paths]
    labels = torch.cat([split.labels for split in dataset.splits.values()])
    groups = [dataset.groups[path] for path in paths] if dataset.groups else None
    judges = Path(predictions) if predictions is not None else None
    judged = held_out(judges, dataset) if judges else None
    if judged and len(judged[0]) < len(paths):
        listener.note(
            f"{judges} has no prediction for {len(paths) - len(judged[0])} of {number_of(len(paths), 'picture')}, whose labels are not judged."
        )
    loaded = models.build(spec.model, weights=spec.weights, image_size=spec.image_size or 0)
    how = Preprocessing.of(loaded, spec.image_size or 0)
    pixels = data_room.Pixels.load(
        paths, how.edge, how.interpolation, progress=lambda done: listener.progress("reading pictures", done, len(paths)),
        cache=data_room.Cache.default(), note=listener.note,
    )  # fmt: skip
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = Samples(pixels, torch.arange(len(paths)), labels, how)
    features = features_at(loaded.module, samples, None, device, listener.progress)
    broken = int((~features.isfinite().all(1)).sum())
    if broken:
        raise UserError(
            f"the features of {spec.model} are not finite for {broken} of {number_of(len(paths), 'picture')}; give another --model."
        )
    wrong = label_errors(features, labels, listener.progress, groups) if judged is None else _by_networks(*judged, labels)
    small = np.stack([small_grey(pixels[row]) for row in range(len(paths))])
    return _cleaning(spec, dataset, features, labels, small, wrong, str(judges or ""), groups)


def _by_networks(places: torch.Tensor, probabilities: torch.Tensor, labels: torch.Tensor) -> list[tuple[int, int, float]]:
    """Labels that look wrong, by place among all pictures."""
    return [(int(places[row]), like, score) for row, like, score in improbable_labels(probabilities, labels[places])]


def _cleaning(
    spec: RunSpec, dataset: data_room.Dataset, features: torch.Tensor, labels: torch.Tensor, small: np.ndarray,
    wrong: list[tuple[int, int, float]], judges: str, groups: list[str] | None,
) -> Cleaning:  # fmt: skip
    splits = [name for name, split in dataset.splits.items() for _ in split.paths]
    names = [dataset.relative(path) for split in dataset.splits.values() for path in split.paths]
    kinds = [dataset.classes[label] for label in labels.tolist()]
    repeated = near_duplicates(features, small, splits)
    issues = [
        *(Issue(names[row], splits[row], "label", kinds[row], dataset.classes[like], score) for row, like, score in wrong),
        *(Issue(names[row], splits[row], "outlier", kinds[row], "", score) for row, score in outliers(features)),
        *(
            Issue(names[row], splits[row], "duplicate", kinds[row], names[group[0][0]], score)
            for group in repeated
            for row, score in group[1:]
        ),
    ]
    shown = {issue.path for issue in issues} | {names[group[0][0]] for group in repeated}
    single = members(labels, None if judges else groups, len(dataset.classes)) == 1
    return Cleaning(
        spec.data, spec.model, dataset.classes, {name: len(split.paths) for name, split in dataset.splits.items()}, issues,
        [name for name, alone in zip(dataset.classes, single.tolist(), strict=True) if alone], judges,
        {name: dataset.find(name) for name in shown},
    )  # fmt: skip
