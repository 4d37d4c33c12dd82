"""What a run folder's files hold, and how each is read. It loads no torch.

Bounds keep what a reader computes with finite: an accuracy is a share, a count fits into eight bytes.
"""

from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

from annotated_types import Interval, Len
from typing_extensions import TypedDict

from rekindle.errors import UserError
from rekindle.files import csv_rows
from rekindle.spec import SPEC, RunSpec, Share
from rekindle.stored import FileFormat

Number = Annotated[float, Interval(ge=-1e100, le=1e100)]
Amount = Annotated[float, Interval(ge=0, le=1e100)]
Whole = Annotated[int, Interval(ge=0, le=2**53)]
Edge = Annotated[int, Interval(ge=1, le=1 << 14)]
Seed = Annotated[int, Interval(ge=0, le=2**64)]
Temperature = Annotated[float, Interval(ge=1e-3, le=1e3)]
Mean = Annotated[float, Interval(ge=0, le=2)]  # Of shares, whose rounding may lead beyond 1.
ROUNDING = 1e-6
PACKAGES = ("rekindle", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "safetensors")
DECISIVE = ("rekindle", "torch")  # Those that a run had better keep to until its end.
RENAMED = {"weight_travel": "weight_distance"}  # As rekindle 0.1.0 called it: as it is called now.
SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")


class ClassFigures(TypedDict):
    """Of one class."""

    name: str
    precision: Share
    recall: Share
    f1: Share
    support: Whole


class Measured(TypedDict):
    """Figures of one split, as `rekindle.analysis.summarize` gives them."""

    loss: Number
    accuracy: Share
    macro_f1: Mean
    calibration_error: Mean
    count: Annotated[int, Interval(ge=1, le=2**53)]
    per_class: list[ClassFigures]
    confusion: list[list[Whole]]


class Reliability(TypedDict):
    """Of one split at temperature 1, where `Measured` has them at the run's own."""

    loss: Number
    calibration_error: Mean


class ProbeFigures(TypedDict):
    """Of a linear probe on one split."""

    accuracy: Share


class Probe(TypedDict):
    """Of a linear probe."""

    val: NotRequired[ProbeFigures]
    test: NotRequired[ProbeFigures]


class Trial(TypedDict):
    """What a search for a method tried."""

    name: str
    epochs: Whole
    accuracy: Share
    loss: Number


class Timing(TypedDict):
    """Of a run."""

    seconds: Amount
    wall_seconds: NotRequired[Amount]
    finished: NotRequired[str]


class Result(TypedDict):
    """result.json."""

    id: str
    method: str
    model: str
    data: str
    direction: NotRequired[str]
    freeze: NotRequired[str | None]
    seed: Seed
    lr: Number
    head_lr: NotRequired[Number]
    classes: list[str]
    epochs: Whole
    kept_epoch: Annotated[int, Interval(ge=-1, le=2**53)]
    probe: NotRequired[Probe | None]
    tried: NotRequired[list[Trial]]
    cautions: NotRequired[list[str]]
    temperature: NotRequired[Temperature]
    uncalibrated: NotRequired[dict[str, Reliability]]
    val: NotRequired[Measured]
    test: NotRequired[Measured]
    timing: Timing


class EpochFigures(TypedDict):
    """Of one split in one epoch."""

    loss: Number
    accuracy: Share


class Norms(TypedDict):
    """Of the gradients of a layer in one epoch; they may overflow."""

    first: float
    mean: float


class Moved(TypedDict):
    """A layer's distance from where it began, and the norm of that."""

    distance: Amount
    norm: Amount


class Recorded(TypedDict):
    """What `--record` asked for, by layer."""

    gradient_norms: NotRequired[dict[str, Norms]]
    weight_distance: NotRequired[dict[str, Moved]]
    weight_travel: NotRequired[dict[str, Moved]]


class EpochTiming(TypedDict):
    """Of an epoch."""

    seconds: Amount
    images_per_second: Amount


class Epoch(TypedDict):
    """A line of metrics.jsonl."""

    epoch: Whole
    train: EpochFigures
    val: NotRequired[EpochFigures]
    watched_test: NotRequired[EpochFigures]
    restarted: bool
    timing: EpochTiming
    analysis: NotRequired[Recorded]


class Data(TypedDict):
    """data.json."""

    files: dict[str, list[str]]
    notes: NotRequired[list[str]]


class Environment(TypedDict):
    """environment.json."""

    run: NotRequired[str]
    options: NotRequired[str]
    packages: NotRequired[dict[str, str]]


class Recipe(TypedDict):
    """model.json: all that it takes to build the network again, beside its weights."""

    model: str
    head: str
    head_type: Literal["auto", "own", "linear"]
    classes: Annotated[list[str], Len(1)]
    image_size: Edge
    mean: Annotated[list[Number], Len(3, 3)]
    std: Annotated[list[Annotated[float, Interval(gt=0, le=1e100)]], Len(3, 3)]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    method: NotRequired[str]
    temperature: NotRequired[Temperature]
    head_modules: NotRequired[list[str]]
    source_classes: NotRequired[Annotated[int, Interval(ge=0, le=1 << 20)] | None]
    merged: NotRequired[bool]  # What the method put beside layers, such as the products of LoRA, is in their weights already.


class FoldsFile(TypedDict):
    """folds.json; all but the number of folds is there once each of them is done."""

    folds: Annotated[int, Interval(ge=2, le=100)]
    val: NotRequired[dict[str, Any]]


class Answer(TypedDict):
    """A row of predictions.csv, all text; a probability for each class follows."""

    split: str
    path: str
    label: str
    prediction: str
    confidence: str
    correct: str


LATEST = "latest"  # What a user types for the run that was written last.
REWRITE = "remove {folder}/result.json, then have it written again with rekindle fit --resume {folder}"
RESULT = FileFormat(2, Result, "write it again with rekindle fit --resume {folder}")
METRICS = FileFormat(2, Epoch, REWRITE)
ANSWERS = FileFormat(1, Answer, REWRITE)  # For the shape and the sentence: a table states no version.
MODEL = FileFormat(2, Recipe, REWRITE)
WEIGHTS = FileFormat(2, dict[str, Any], "fetch or write it again")
CHECKPOINT = FileFormat(2, dict[str, Any], "remove it")
DATA = FileFormat(2, Data, "train the run again")
FOLDS_FILE = "folds.json"
FOLDS = FileFormat(1, FoldsFile, "go on with rekindle fit --resume {folder}")
ENVIRONMENT = FileFormat(2, Environment, "remove it and try again")


def read_spec(folder: Path) -> RunSpec:
    """The spec of a run folder.

    Returns:
        The settings of the run, its defaults filled in.
    """
    path = folder / "spec.yaml"
    if not path.exists():
        raise UserError(f"{folder} is no run folder (it has no spec.yaml); name one that rekindle fit made.")
    with SPEC.surprises(path):
        return RunSpec.from_dict(SPEC.read_yaml(path))


def write_spec(folder: Path, spec: RunSpec) -> None:
    """Write spec.yaml, which `read_spec` reads."""
    SPEC.write_yaml(folder / "spec.yaml", spec.to_dict())


def read_result(folder: Path) -> Result:
    """What result.json of a finished run holds, whole and without contradictions.

    Returns:
        The checked contents.
    """
    path = folder / "result.json"
    if not path.exists():
        raise UserError(f"{folder} has not finished; continue it with rekindle fit --resume {folder}")
    result = RESULT.read(path)
    measured = [result[split] for split in SPLITS if split in result]
    if not measured:
        raise RESULT.damaged(path, "it has neither a validation nor a test split")
    if not all(_agree(one, result["classes"]) for one in measured):
        raise RESULT.damaged(path, "its figures contradict each other")
    return result


def _agree(measured: Measured, classes: list[str]) -> bool:
    """Whether accuracy, counts and classes are those of the confusion matrix."""
    confusion = measured["confusion"]
    right = sum(row[place] for place, row in enumerate(confusion) if place < len(row))
    return (
        [row["name"] for row in measured["per_class"]] == classes
        and [len(row) for row in confusion] == [len(classes)] * len(classes)
        and sum(map(sum, confusion)) == measured["count"]
        and abs(right / measured["count"] - measured["accuracy"]) < ROUNDING
    )


def read_history(folder: Path) -> list[Epoch]:
    """The lines of metrics.jsonl, one an epoch, each with the same splits and recordings.

    Returns:
        One record an epoch, in order; none before the first epoch ends.
    """
    path = folder / "metrics.jsonl"
    history = METRICS.read_lines(path)
    for line in history:
        if "analysis" in line:
            line["analysis"] = cast(Recorded, current_names(line["analysis"]))
    if [line["epoch"] for line in history] != list(range(len(history))) or not history:
        raise METRICS.damaged(path, "it has no line for each epoch")
    if any(_outline(line) != _outline(history[0]) for line in history):
        raise METRICS.damaged(path, "its lines hold different things")
    return history


def current_names(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What was recorded by name, under the names of today.

    Returns:
        The same values under other names.
    """
    return {RENAMED.get(name, name): value for name, value in recorded.items()}


def _outline(line: Epoch) -> list[Any]:
    """What a line speaks of beside what every one has."""
    recorded: dict[str, Any] = {**line.get("analysis", {})}
    return ["val" in line, "watched_test" in line, {name: list(recorded[name]) for name in Recorded.__annotations__ if name in recorded}]


def read_predictions(folder: Path, split: str) -> list[Answer]:
    """Rows of predictions.csv for one split, without the probability of each class, of which there may be thousands.

    Returns:
        One answer a picture, in the file's order.
    """
    return list(_predictions(folder, split, Answer.__annotations__))


def read_probabilities(folder: Path, split: str) -> Iterator[Answer]:
    """The same rows one after the other, with the probability of each class under "p_CLASS".

    Yields:
        One answer a picture, in the file's order.
    """
    return _predictions(folder, split, None)


def _predictions(folder: Path, split: str, columns: Collection[str] | None) -> Iterator[Answer]:
    path = folder / "predictions.csv"
    with ANSWERS.surprises(path):
        for row in csv_rows(path, columns):
            answer = ANSWERS.checked(path, row, bounded=True)
            if not 0 <= float(answer["confidence"]) <= 1:
                raise ValueError("a confidence is no share")
            if answer["split"] == split:
                yield answer


def read_folds(folder: Path) -> FoldsFile | None:
    """What folds.json of a cross-validation holds; None for another folder.

    Returns:
        The checked contents, or None.
    """
    return FOLDS.read(folder / FOLDS_FILE) if (folder / FOLDS_FILE).is_file() else None


def folds_of(folder: Path) -> int | None:
    """How many folds the folder of a cross-validation has; None for another folder.

    Returns:
        A count from 2, or None.
    """
    found = read_folds(folder)
    return found and found["folds"]


def read_recipe(folder: Path) -> Recipe:
    """What model.json of a run folder holds.

    Returns:
        The checked contents: network, classes, preprocessing, method.
    """
    path = folder / "model.json"
    if not path.exists():
        raise UserError(f"{folder} holds no trained network (no model.json); finish the run with rekindle fit --resume {folder}.")
    return {"temperature": 1.0, **MODEL.read(path)}  # Early versions had none.


def read_environment(folder: Path) -> Environment:
    """What environment.json of a run folder holds; nothing in folders of early versions, which had none.

    Returns:
        Versions and machine by name.
    """
    path = folder / "environment.json"
    return ENVIRONMENT.read(path) if path.exists() else {}


def began_as(folder: Path) -> str:
    """The id of a run that began in a folder, which may have been renamed since; early versions had it in the folder's name alone.

    Returns:
        The run's id; for early versions the last twelve characters of the folder's name.
    """
    return read_environment(folder).get("run", folder.resolve().name[-12:])


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Which versions are installed of the packages that a result may depend on.

    Returns:
        Versions by package, "not installed" for those that are not.
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
