"""What a user can set, declared once: types and ranges stand in annotations, and `check_fields` reads them.

`RunSpec` is everything that decides a run's result, frozen. Importing it loads no torch, so that --help is quick.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Union

from annotated_types import Ge, Gt, Interval, Le, Lt, Predicate

from rekindle.errors import UserError, number_of, shown
from rekindle.files import expand, read_yaml
from rekindle.stored import KEY, FileFormat

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Interval(ge=1, le=1_000_000)]
Rate = Annotated[float, Interval(gt=0, le=1e38)]  # What float32 holds: weights are moved by it.
LARGEST, LARGEST_MULTIPLE = sys.float_info.max, 1e6
MOST_SEEDS = 2**54  # Below 2**64 / 1009: every rank's generator is made from 1009 times the seed, and torch takes 64 bits.
Granularity = Literal["global", "layer", "tensor"]  # What counts as one vector, for a direction.
Threads = Annotated[int, Interval(ge=1, le=1_024)]
Units = Annotated[float, Interval(ge=0, le=1_024)]  # Processors or GPUs, also parts of them.
WeightDecay = Literal["outside", "inside"]  # Where plain weight decay stands, for a direction.
EMA = 0.99  # The decay of an average over some hundred steps, of the 300 or more that a run has.
AUTO = "auto"  # What a user types to leave a choice to the run.


@dataclass(frozen=True)
class Means:
    """Words for what an annotation allows, where its type says too little: `Annotated[str, Means("the name of a stage")]`."""

    words: str


def check_fields(owner: str, holder: Any) -> None:
    """Refuse a value that its field's annotation does not allow.

    Known are bool, int, float (finite; an int passes), str, Literal, None, tuples and unions of them, and Annotated with the bounds
    of `annotated_types`, with its `Predicate`, or with `Means`.

    Args:
        owner: Who is meant, at the beginning of the message, such as "rifle: ".
        holder: A dataclass object; fields that `__init__` does not take are passed over.

    Raises:
        UserError: In one sentence that names the field, what is allowed and what was found.
    """
    kind: Any = type(holder)
    for name, hint in hints(kind).items():
        value = getattr(holder, name)
        if not fits(value, hint):
            raise UserError(f"{owner}{name} must be {wanted(hint)}, found {shown(value)}.")


@cache
def hints(kind: Any) -> dict[str, Any]:
    """The annotations of a dataclass's fields that `__init__` takes, by name."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind) if field.init}


def fits(value: Any, hint: Any) -> bool:
    """Whether an annotation allows a value."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        tests = [extra.func for extra in parts[1:] if isinstance(extra, Predicate)]
        bounds = _bounds(parts[1:])
        return fits(value, parts[0]) and all(_within(value, bound) for bound in bounds) and all(test(value) for test in tests)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and _all_fit(value, parts)
    if hint in (None, type(None)):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def is_multiple(text: str) -> bool:
    """Whether a text is a multiple such as "x10" above 0, at most a million, or "tied"."""
    return text == "tied" or bool(re.fullmatch(r"x(\d+(\.\d+)?|\.\d+)", text) and 0 < float(text[1:]) <= LARGEST_MULTIPLE)


def distinct(values: tuple[Any, ...]) -> bool:
    """Whether no two items are equal: for `Annotated[tuple[str, ...], Predicate(distinct)]`."""
    return len(set(values)) == len(values)


def is_pattern(text: str) -> bool:
    """Whether a text is a regular expression with at most one group."""
    try:
        return bool(text) and re.compile(text).groups <= 1
    except re.error:
        return False


def is_fold(text: str) -> bool:
    """Whether a text names one of 2 to 100 folds, such as "2/5"."""
    match = re.fullmatch(r"([1-9]\d{0,2})/([1-9]\d{0,2})", text)
    return match is not None and int(match[1]) <= int(match[2]) and fits(int(match[2]), Folds)


def _all_fit(values: tuple[Any, ...], parts: tuple[Any, ...]) -> bool:
    if len(parts) == 2 and parts[1] is ...:
        return all(fits(value, parts[0]) for value in values)
    return len(values) == len(parts) and all(fits(value, part) for value, part in zip(values, parts, strict=True))


def _bounds(extras: tuple[Any, ...]) -> list[Ge | Gt | Le | Lt]:
    """Single bounds; an Interval is up to two of them."""
    single: list[Ge | Gt | Le | Lt] = []
    for extra in extras:
        single += [bound for bound in (extra if isinstance(extra, Interval) else [extra]) if isinstance(bound, Ge | Gt | Le | Lt)]
    return single


def _within(value: Any, bound: Ge | Gt | Le | Lt) -> bool:
    if isinstance(bound, Ge):
        return bool(value >= bound.ge)
    if isinstance(bound, Gt):
        return bool(value > bound.gt)
    return bool(value <= bound.le) if isinstance(bound, Le) else bool(value < bound.lt)


def wanted(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        said = [extra.words for extra in parts[1:] if isinstance(extra, Means)]
        return said[0] if said else " ".join([wanted(parts[0]), " and ".join(map(_bound_words, _bounds(parts[1:])))]).rstrip()
    if origin in (Union, types.UnionType):
        return " or ".join(wanted(part) for part in parts)
    if origin is Literal:
        return " or ".join(f'"{part}"' if isinstance(part, str) else repr(part) for part in parts)
    if origin is tuple:
        return "a tuple"
    names = {bool: "True or False", int: "a whole number", float: "a finite number", str: "text", type(None): "None"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _bound_words(bound: Ge | Gt | Le | Lt) -> str:
    if isinstance(bound, Ge):
        return f"of at least {bound.ge}"
    if isinstance(bound, Gt):
        return f"above {bound.gt}"
    return f"at most {bound.le}" if isinstance(bound, Le) else f"below {bound.lt}"


def snake(name: str) -> str:
    """``L2SP`` -> ``l2_sp``, ``Rifle`` -> ``rifle``, ``L2SPFisher`` -> ``l2_sp_fisher``: a class's name in a recipe."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


Folds = Annotated[int, Interval(ge=2, le=100)]
Fold = Annotated[str, Predicate(is_fold), Means('one of 2 to 100 folds, such as "2/5"')]
Pattern = Annotated[str, Predicate(is_pattern), Means("a regular expression with at most one pair of brackets, such as 'patient(\\d+)_'")]
Multiple = Annotated[str, Predicate(is_multiple), Means('a multiple such as "x10", at most "x1000000", or "tied"')]


@dataclass(frozen=True)
class RunSpec:
    """A run: its id is the hash of this and of the contents of data and weights.

    Args:
        data: Folder of class folders, or of train (val, test) folders of them; a .csv, .tsv, .jsonl or .parquet table, or a folder of train (val, test) tables; hf:NAME, or a saved Hugging Face dataset.
        model: "tf_efficientnet_lite0", which is installed with rekindle, any other timm name such as "resnet50", "torchvision:NAME", "cifar_resnet20", "cifar_resnet56" or "tiny"; "auto" takes the installed one, or one that was downloaded before, is no more work than the machine can do, and has features on which a linear probe cross-validates better; with --minutes the installed one.
        weights: "default" for the model's own pre-trained weights, "none" for random ones, or a .safetensors or .pth file, or another run's folder.
        method: Recipe, such as "l2_sp(alpha=0.01)+rifle(periods=2)"; `rekindle methods` lists the parts. "auto" tries plain fine-tuning and four rivals for twice the time, and keeps plain fine-tuning unless a rival validates better than luck explains.
        direction: How the gradients of loss and penalties are combined: "plain_sum", "dtnh", "grod", "pcgrad", "mgda", "gradvac" or "cagrad",
            with options in brackets.
        freeze: Last stage to leave as it is pre-trained, such as "layer2"; "auto" searches it on the validation split; "none" trains all.
        epochs: Passes over the training set; "auto" chooses by the number of training images.
        minutes: Shorten the run to what this machine trains in so many minutes from now on; "none" sets no limit.
        patience: Stop when validation accuracy has not risen for so many epochs; "none" trains all of them.
        lr: Base learning rate, that of the backbone; "auto" measures a few gradients for SGD (Polyak's step, from 0.002 to 0.006, or to 0.03 where BatchNorm takes the batch's statistics); optimisers such as AdamW get 0.0001, random weights ten times that, or 0.1 with SGD.
        head_lr: Learning rate of the new classifier: a number, a multiple of --lr such as "x10", or "tied" for the same, as in the papers; "auto" takes the one at which it learns at its best pace on the network's features, and at most "x4" in a network without normalisation where it starts at the linear probe and no method draws it anew.
        head_init: Start of the new classifier: "random", "zero", or "linear_probe", fitted on frozen features; "auto" takes the probe where the network was pre-trained.
        batchnorm: Statistics that BatchNorm normalises by in training: "frozen" ones of pre-training, or each "batch"; "auto" takes the batch's unless a linear probe's loss is a quarter higher with them.
        warmup: Share of the run's steps in which the learning rates rise from nearly 0.
        clip_norm: Norm that the gradient of all weights is clipped to; "none" leaves it.
        ema: Keep the exponential moving average of the weights over the steps, with this decay a step, such as 0.99, which --ema alone takes; after a restart it begins anew. "none" keeps the weights themselves.
        optimizer: Any optimiser of torch.optim by name; SGD gets momentum 0.9. "auto" takes AdamW for networks that normalise by LayerNorm,
            such as vision transformers and ConvNeXt, and SGD for others.
        penalties: How penalties on weights, such as those of l2 and l2_sp, act: "decoupled" moves the weights themselves, as AdamW's weight decay
            does; "gradient" passes through the optimiser. "auto" decouples them under every optimiser but SGD and ASGD.
        batch_size: Images a step, over all devices.
        grad_accum_steps: Micro-batches that a step's images are split into, where memory is short.
        image_size: Edge of the crop in pixels; "auto" takes what the weights were trained on.
        image_column: Column of a table with paths or bytes of pictures; "auto" finds it.
        label_column: Column of a table with labels, text or integers; "auto" finds it.
        split_column: Column of a table with train, validation or test; "auto" finds it where there is one.
        group_column: Column of a table with what belongs together, such as a patient or a camera: no group stands in two of the splits that the run makes; "none" takes each picture alone.
        group_pattern: The same by pictures' names, for folders: a regular expression that finds the group in a path from the data's folder, such as 'patient(\\d+)_'; a group is what its brackets match, or all of it; "none" takes each picture alone.
        source_data: Folder of pictures that the source was trained on, in class folders or not, for methods that estimate the Fisher information; "none" takes the training images for it.
        exclude: CSV file that names pictures in its column path, such as the clean.csv of `rekindle data clean`: none of them trains or validates, and those of the test split stay there; "none" leaves out nothing.
        per_class: Train on exactly this many images a class, or on "all"; validation takes others.
        fraction: Train on this share of the images of each class, such as 0.15, or on "all"; validation takes others where enough are left.
        val_fraction: Share of the training images that becomes the validation split where there is none; 0 trains on all, once all is chosen.
        test_fraction: Share of a bare folder that becomes the test split, which is the same for every seed.
        fold: Such as "2/5": training and validation pictures are divided into five folds, classes and groups evenly, and the second validates; --folds 5 trains all of them; "none" makes no folds.
        flip: Mirror half of the training images.
        augment: More augmentation than crop and mirror, such as "randaugment+color_jitter+random_erasing" or "mixup(alpha=0.2)+cutmix", each with optional arguments in brackets; "none" for crop and mirror alone; "auto" is "trivial_augment" for pre-trained networks without grouped convolutions, which gain by it, and "none" for others.
        views: Show each training picture in so many crops, mirrored and augmented as ever, in turn, so that a frozen part of the network computes each of them once; "all" draws a new one in each epoch.
        label_smoothing: Share of each label spread over all classes, from 0 to below 1.
        sampler: Order of training images: "shuffle", or "balanced" to draw every class equally often in an epoch of the same length.
        class_weights: Weigh classes in the loss: "none", or "balanced" by inverse frequency.
        head: Name of the classifier module; "auto" finds it.
        head_type: "own" keeps the kind of classifier, "linear" puts pooling and one linear layer in its place; "auto" is "linear" where the network's own ends in a ReLU, as SqueezeNet's.
        test: Measure on the test split at the end; leave it unread while you choose among settings.
        test_every_epoch: Measure on the test split after every epoch, for learning curves; it chooses nothing.
        record: What to write down every epoch, joined by commas, such as "gradient_norms,weight_distance"; `rekindle analyze` draws it.
        keep: Weights to keep: of the "last" epoch, or of the "best" on validation (never one right after a restart, and maybe the linear probe that training began with); "auto" is the last, unless that probe is right on at least two more validation pictures (never in a fold, which is measured on them); "mix" is the mean of that probe and the last, in the shares that are best on validation (WiSE-FT; half of each in a fold); "average" is the mean over the last quarter of the epochs, in which learning rates that no method sets stay as they are (SWA; a run that --patience ends before then keeps its last epoch).
        precision: "auto", "32" or "bf16".
        devices: Processes that train together.
        seed: Random seed, the key of every random draw.
        defaults: Whose rules stand behind "auto" and divide the data: of this version, or of "0.1", as in the run folders that it wrote.
    """

    data: str
    model: str = AUTO
    weights: str = "default"
    method: str = "l2"
    direction: str = "plain_sum"
    freeze: str | None = None
    epochs: Annotated[int, Interval(ge=1, le=100_000)] | None = None
    minutes: Annotated[float, Interval(gt=0, le=1_000_000)] | None = None
    patience: Count | None = None
    lr: Rate | None = None
    head_lr: Rate | Multiple | None = None
    head_init: Literal["auto", "random", "zero", "linear_probe"] = "auto"
    batchnorm: Literal["auto", "frozen", "batch"] = "auto"
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    clip_norm: Rate | None = 8.0
    ema: Annotated[float, Interval(gt=0, lt=1)] | None = None
    optimizer: str = "SGD"
    penalties: Literal["auto", "decoupled", "gradient"] = "auto"
    batch_size: Annotated[int, Interval(ge=2, le=65_536)] = 32
    grad_accum_steps: Count = 1
    image_size: Annotated[int, Interval(ge=1, le=8_192)] | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    group_pattern: Pattern | None = None
    source_data: str | None = None
    exclude: str | None = None
    per_class: Count | None = None
    fraction: Annotated[float, Interval(gt=0, le=1)] | None = None
    val_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    test_fraction: Annotated[float, Interval(gt=0, lt=1)] = 0.2
    fold: Fold | None = None
    flip: bool = True
    augment: str | None = AUTO
    views: Count | None = None
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    class_weights: Literal["none", "balanced"] = "none"
    head: str | None = None
    head_type: Literal["auto", "own", "linear"] = "auto"
    test: bool = True
    test_every_epoch: bool = False
    record: str | None = None
    keep: Literal["auto", "last", "best", "mix", "average"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"
    devices: Annotated[int, Interval(ge=1, le=1_024)] = 1
    seed: Annotated[int, Interval(ge=0, lt=MOST_SEEDS)] = 0
    defaults: Literal["0.1", "0.2"] = "0.2"

    def __post_init__(self) -> None:
        for name in PLACES:
            if str(getattr(self, name)).startswith("~"):
                object.__setattr__(self, name, str(expand(getattr(self, name))))
        for name, word in NONE_WORDS.items():
            if getattr(self, name) == word:
                object.__setattr__(self, name, None)
        if self.defaults == "0.1":
            for name, value in RELEASED.items():
                if getattr(self, name) == getattr(RunSpec, name):
                    object.__setattr__(self, name, value)
        for name in hints(RunSpec):
            check_option(name, getattr(self, name))
        if self.fraction and self.per_class:
            raise UserError(f"--fraction {self.fraction} and --per-class {self.per_class} both choose a subset; give one of them.")
        if self.group_column and self.group_pattern:
            raise UserError(
                f"--group-column {self.group_column} and --group-pattern {self.group_pattern} both name groups; give one of them."
            )
        if self.fold and self.val_fraction != RunSpec.val_fraction:
            raise UserError(f"folds hold out a share of their own, so --val-fraction {self.val_fraction:g} has no meaning; leave it out.")
        if self.sampler == self.class_weights == "balanced":
            raise UserError("--sampler balanced and --class-weights balanced together would even classes out twice; give one of them.")
        if self.keep == "average" and self.ema is not None:
            raise UserError("--keep average and --ema both average weights; give one of them.")
        if self.keep == "mix" and (self.weights == "none" or self.head_init in ("random", "zero")):
            other = "--weights none" if self.weights == "none" else f"--head-init {self.head_init}"
            raise UserError(
                f"--keep mix mixes with the pre-trained network and its linear probe, and {other} has none; leave one of them out."
            )
        least = 2 * self.grad_accum_steps * self.devices
        if self.batch_size < least:
            raise UserError(
                f"--batch-size {self.batch_size} is too small to be split: {self.grad_accum_steps} micro-batches on {number_of(self.devices, 'device')} "
                f"need at least {least}."
            )
        if self.test_every_epoch and not self.test:
            raise UserError("--test-every-epoch reads the test split, and --no-test forbids it; leave one of them out.")

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, as spec.yaml holds them; the word that a user types stands where something is left to be chosen."""
        return {name: NONE_WORDS[name] if value is None else value for name, value in self._values().items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunSpec":
        """Read what `to_dict` gave, also that of rekindle 0.1.0, which did not name its defaults."""
        return cls(**{"defaults": "0.1", **current_options(values)})

    def located(self) -> "RunSpec":
        """The same with the whole path of each file and folder that is there, so that it is found from any working folder."""
        places = {name: getattr(self, name) for name in PLACES}
        whole = {name: os.path.abspath(place) for name, place in places.items() if place and Path(place).exists()}
        return dataclasses.replace(self, **{name: whole[name] for name in whole if places[name] not in ("default", "none")})

    def data_options(self) -> dict[str, Any]:
        """What `rekindle.data.open_data` is told beside the data."""
        columns = ("image_column", "label_column", "split_column", "group_column", "group_pattern")
        shares = ("val_fraction", "test_fraction", "per_class", "fraction", "fold")
        return {name: getattr(self, name) for name in (*columns, *shares, "seed", "defaults", "exclude")}

    def chosen(self) -> dict[str, Any]:
        """Fields that are not at their defaults, by name."""
        usual = _usual(self.defaults)
        return {name: value for name, value in self._values().items() if value != usual[name]}

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in hints(RunSpec)}  # None is a container, which `asdict` would look for at length.

    def identity(self) -> dict[str, Any]:
        """`chosen` under the names of rekindle 0.1.0, and whose defaults the rest are, so that a run keeps its id.

        0.1.0 did not name its defaults, so its runs have none in their ids; nor have the network and the augmentation, none, that were
        the defaults when ids were first made, whatever the defaults are now.
        """
        old = {new: name for name, new in RENAMED.items()}
        found = {old.get(name, name): value for name, value in self.chosen().items() if name != "defaults"}
        if self.model == RELEASED["model"]:
            found.pop("model", None)
        found.pop("augment", None)
        if self.augment is not None:
            found["augment"] = self.augment
        if self.defaults != "0.1":
            found["defaults"] = self.defaults
        if "record" in found:
            found["record"] = found["record"].replace("weight_distance", "weight_travel")
        return found

    def options_hash(self) -> str:
        """Twelve hexadecimal digits of `identity` without the places of data and weights, which may be moved."""
        identity = {name: value for name, value in self.identity().items() if name not in PLACES}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]

    def run_id(self, data_hash: str, weights_hash: str) -> str:
        """Twelve hexadecimal digits from the canonical JSON of the spec and the contents' hashes; paths do not count.

        Options at their defaults are left out, so that a run keeps its id when a later version knows more options.
        """
        hashed = ("source_data", "exclude")  # What they do is part of `data_hash`.
        identity = {name: value for name, value in self.identity().items() if name not in hashed}
        text = json.dumps({**identity, "data": data_hash, "weights": weights_hash}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class RunOptions(TypedDict, total=False):
    """Fields of `RunSpec` besides data, method and direction, as keyword arguments: editors complete them, and a test holds them to the class."""

    model: str
    weights: str
    freeze: str | None
    epochs: int | Literal["auto"] | None
    minutes: float | Literal["none"] | None
    patience: int | Literal["none"] | None
    lr: float | Literal["auto"] | None
    head_lr: float | str | None
    head_init: Literal["auto", "random", "zero", "linear_probe"]
    batchnorm: Literal["auto", "frozen", "batch"]
    warmup: float
    clip_norm: float | Literal["none"] | None
    ema: float | Literal["none"] | None
    optimizer: str
    penalties: Literal["auto", "decoupled", "gradient"]
    batch_size: int
    grad_accum_steps: int
    image_size: int | Literal["auto"] | None
    image_column: str | None
    label_column: str | None
    split_column: str | None
    group_column: str | None
    group_pattern: str | None
    source_data: str | None
    exclude: str | None
    per_class: int | Literal["all"] | None
    fraction: float | Literal["all"] | None
    val_fraction: float
    test_fraction: float
    fold: str | None
    flip: bool
    augment: str | None
    views: int | Literal["all"] | None
    label_smoothing: float
    sampler: Literal["shuffle", "balanced"]
    class_weights: Literal["none", "balanced"]
    head: str | None
    head_type: Literal["auto", "own", "linear"]
    test: bool
    test_every_epoch: bool
    record: str | None
    keep: Literal["auto", "last", "best", "mix", "average"]
    precision: Literal["auto", "32", "bf16"]
    devices: int
    seed: int
    defaults: Literal["0.1", "0.2"]


SPEC = FileFormat(2, dict[str, Any], "start the run again")  # spec.yaml; whoever reads it makes a `RunSpec` of it, which checks the rest.
PLACES = ("data", "weights", "source_data", "exclude")  # Fields that may name files and folders; a run is known by their content.
# What a user types where a field is None: the choice is left to the run, or nothing is taken away or added.
NONE_WORDS = {
    "freeze": "none", "epochs": "auto", "minutes": "none", "patience": "none", "lr": "auto", "head_lr": "auto", "clip_norm": "none", "ema": "none", "image_size": "auto", "image_column": "auto",
    "label_column": "auto", "split_column": "auto", "group_column": "none", "group_pattern": "none", "fold": "none", "per_class": "all", "fraction": "all", "augment": "none", "views": "all", "source_data": "none", "exclude": "none",
    "head": "auto", "record": "none",
}  # fmt: skip
RELEASED: dict[str, Any] = {  # What rekindle 0.1.0 did where there is an option now, or where its "auto" meant something else.
    "model": "resnet18", "head_lr": "tied", "head_init": "random", "batchnorm": "batch", "head_type": "own", "warmup": 0.0, "clip_norm": None,
    "augment": None, "keep": "last",
}  # fmt: skip
RENAMED = {"freeze_until": "freeze", "accumulate": "grad_accum_steps", "read_test": "test", "watch_test": "test_every_epoch"}  # 0.1.0: now


def option_words(name: str) -> str:
    """What an option takes, in words; a word in the place of None."""
    words = wanted(hints(RunSpec)[name])
    return words.replace("None", NONE_WORDS[name]) if name in NONE_WORDS else words


@lru_cache(maxsize=4096, typed=True)
def _fits_option(name: str, value: Any) -> bool:
    """Looked up rather than found again: a study of 10,000 runs has 470,000 values, nearly all of which are the same."""
    return fits(value, hints(RunSpec)[name])


@cache
def _usual(version: str) -> dict[str, Any]:
    """Each field's value where nothing was asked, under the defaults of a version."""
    released = RELEASED if version == "0.1" else {}
    return {**{field.name: field.default for field in dataclasses.fields(RunSpec)}, **released}


def check_option(name: str, value: Any) -> None:
    """Refuse a value that a field of `RunSpec` does not take, also where another command has an option of that name.

    Raises:
        UserError: Saying what it takes.
    """
    try:
        allowed = _fits_option(name, value)
    except TypeError:  # It cannot be hashed, as a list.
        allowed = fits(value, hints(RunSpec)[name])
    if not allowed:
        raise UserError(f"--{name.replace('_', '-')} must be {option_words(name)}, found {shown(value)}.")


def check_value(flag: str, value: Any, hint: Any) -> None:
    """Refuse a value of an option of another kind, by an annotation.

    Raises:
        UserError: Saying what it takes.
    """
    if not fits(value, hint):
        raise UserError(f"{flag} must be {wanted(hint)}, found {shown(value)}.")


def current_options(values: dict[str, Any]) -> dict[str, Any]:
    """Options under the names of today: some had others in rekindle 0.1.0, where 0 or "" left a choice open."""
    found = {RENAMED.get(name, name): value for name, value in values.items()}
    if isinstance(found.get("record"), str):
        found["record"] = found["record"].replace("weight_travel", "weight_distance")
    return {name: None if name in NONE_WORDS and value in (0, "") else value for name, value in found.items()}


def check_names(names: Iterable[str]) -> None:
    """Refuse an option that there is not.

    Raises:
        UserError: Naming the one that was likely meant.
    """
    known = list(hints(RunSpec))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}."
            raise UserError(f"there is no option {name!r}; {hint}")


def read_options(path: Path) -> dict[str, Any]:
    """Options of a YAML file by name, such as a run's spec.yaml.

    Raises:
        UserError: If the file cannot be read, or names an option that there is not.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}; --config takes a YAML file of options, such as a run's spec.yaml.")
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no options; write them as name: value, a line each.")
    SPEC.check_version(path, found.pop(KEY, SPEC.version))
    options = current_options({str(name): value for name, value in found.items()})
    try:
        check_names(options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return options
