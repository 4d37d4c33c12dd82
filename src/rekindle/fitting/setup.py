"""What a run needs before it trains, and what is to be known of its data: device, loss, hashes, leaks."""

import hashlib
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rekindle import data as data_room
from rekindle.errors import UserError, agree, first_line, number_of
from rekindle.fitting.source_data import SourceData
from rekindle.method import Method
from rekindle.spec import RunSpec
from rekindle.training.precision import automatic_precision

if TYPE_CHECKING:
    from rekindle.data.augment import Augment
    from rekindle.training.fabric import Fabric

UNEVEN = 3.0
FEW_PROCESSES = 4  # That any machine may be asked for, as to try out how several train together.
DARK_SAMPLE, NEARLY_BLACK = 50, 32


def check_mixing(augment: "Augment | None", methods: list[Method]) -> None:
    if augment is not None and augment.mixes:
        refusing = [method.name for method in methods if method.needs_hard_labels]
        if refusing:
            raise UserError(
                f"mixup and cutmix give a picture shares of two classes, but {', '.join(refusing)} needs one class a picture; leave one of them out."
            )


def make_criterion(spec: RunSpec, labels: Tensor, classes: int) -> Any:
    from rekindle.training.criterion import CrossEntropy, balanced_weights

    return CrossEntropy(spec.label_smoothing, balanced_weights(labels, classes) if spec.class_weights == "balanced" else None)


def launch(spec: RunSpec, device: str) -> "Fabric":
    from rekindle.training.fabric import Fabric

    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    most = max(FEW_PROCESSES, os.cpu_count() or 1)
    if spec.devices > most and (device == "cpu" or not torch.accelerator.is_available()):
        raise UserError(
            f"--devices {spec.devices} would start as many processes on {number_of(os.cpu_count() or 1, 'processor core')}; give at most {most}."
        )
    asked = automatic_precision(device=device) if spec.precision == "auto" else spec.precision
    precision = {"32": "32-true", "bf16": "bf16-mixed"}[asked]
    try:
        fabric = Fabric(accelerator=device, devices=spec.devices, strategy="ddp" if spec.devices > 1 else "auto", precision=precision)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--device {device} with --devices {spec.devices} cannot be used here ({first_line(error)}); try --device auto --devices 1."
        ) from error
    fabric.launch()
    return fabric


def data_hash(dataset: data_room.Dataset, pixels: data_room.Pixels, source: SourceData | None = None) -> str:
    """By content: that of the run's data, and of the source's where they are given."""
    names, labels = [], []
    for name, split in dataset.splits.items():
        names += [f"{name}/{dataset.relative(path)}" for path in split.paths]
        labels += split.labels.tolist()
    found = pixels.content_hash(names, labels)
    return found if source is None else hashlib.sha256(f"{found} {source.content}".encode()).hexdigest()


def weights_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def leaks(dataset: data_room.Dataset, pixels: data_room.Pixels) -> list[str]:
    pairs = data_room.duplicates(dataset, pixels.hashes)
    found = (
        [
            f"{number_of(len(pairs), 'image', 'stands')} in two splits, byte for byte (such as {pairs[0][0]} and {pairs[0][1]}): accuracy on {agree(len(pairs), 'it')} says nothing."
        ]
        if pairs
        else []
    )
    if unlike := data_room.contradictions(dataset, pixels.hashes):
        found.append(
            f"{number_of(len(unlike), 'image', 'has')} two labels (such as {unlike[0][0]} and {unlike[0][1]}, byte for byte the same): mend one of them."
        )
    return found


def dark(dataset: data_room.Dataset, pixels: data_room.Pixels) -> list[str]:
    """What to know where most pictures are nearly black, as 12-bit values in 16-bit files are; some from all over the set are looked at."""
    looked = range(0, len(pixels), max(1, len(pixels) // DARK_SAMPLE))
    black = [index for index in looked if pixels[index].max() < NEARLY_BLACK]
    if 2 * len(black) <= len(looked):
        return []
    paths = [path for split in dataset.splits.values() for path in split.paths]
    text = (
        f"{len(black)} of {number_of(len(looked), 'picture')} looked at {agree(len(black), 'is')} nearly black, with no value above {NEARLY_BLACK - 1} of 255 (such as "
        f"{dataset.relative(paths[black[0]])}); if the files hold 10 or 12 bits in 16, save them stretched to 16, or as TIFF with MaxSampleValue."
    )
    return [text]


def uneven(spec: RunSpec, dataset: data_room.Dataset) -> list[str]:
    """What to know of unbalanced classes before training."""
    found = data_room.imbalance(dataset.counts()["train"])
    if found["ratio"] < UNEVEN:
        return []
    remedy = (
        "; --sampler balanced or --class-weights balanced evens them out"
        if spec.sampler == "shuffle" and spec.class_weights == "none"
        else ""
    )
    return [
        f"classes are unbalanced: from {found['fewest']} ({found['smallest']}) to {found['most']} ({found['largest']}) training images{remedy}."
    ]
