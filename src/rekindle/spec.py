"""`RunSpec`: everything that decides a run's result, frozen. Importing it loads no torch, so that --help is quick."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from rekindle.errors import UserError


@dataclass(frozen=True)
class RunSpec:
    """A run: its id is the hash of this and of the contents of data and weights.

    Args:
        data: Folder of class folders, or of train (val, test) folders of them; a .csv, .tsv or .parquet table, or a folder of train (val, test) tables; hf:NAME, or a saved Hugging Face dataset.
        model: "resnet18" (any timm name), "torchvision:NAME", "cifar_resnet20", "cifar_resnet56" or "tiny".
        weights: "default" for the model's own pre-trained weights, "none" for random ones, or a .safetensors file.
        method: Recipe, such as "l2_sp(alpha=0.01)+rifle(periods=2)"; `rekindle methods` lists the parts.
        direction: How the gradients of loss and penalties are combined: "plain_sum", "dtnh" or "grod", with options in brackets.
        freeze_until: Last stage to leave as it is trained, such as "layer2"; "auto" searches it on the validation split; empty trains all.
        epochs: Passes over the training set; 0 chooses by the number of training images.
        lr: Base learning rate; 0 finds one by short trials on training images.
        optimizer: Any optimiser of torch.optim by name; SGD gets momentum 0.9.
        batch_size: Images a step, over all devices.
        accumulate: Micro-batches that a step's images are split into, where memory is short.
        image_size: Edge of the crop in pixels; 0 takes what the weights were trained on.
        image_column: Column of a table with paths or bytes of pictures; empty finds it.
        label_column: Column of a table with labels, text or integers; empty finds it.
        split_column: Column of a table with train, validation or test; empty finds it where there is one.
        per_class: Train on exactly this many images a class; 0 takes all.
        fraction: Train on this share of the images of each class, such as 0.15; 0 takes all.
        val_fraction: Share of the training images that becomes the validation split where there is none.
        test_fraction: Share of a bare folder that becomes the test split.
        flip: Mirror half of the training images.
        augment: More augmentation, such as "randaugment+color_jitter+random_erasing" or "mixup(alpha=0.2)+cutmix", each with optional arguments in brackets; empty for crop and mirror alone.
        label_smoothing: Share of each label spread over all classes, from 0 to below 1.
        sampler: Order of training images: "shuffle", or "balanced" to draw every class equally often in an epoch of the same length.
        class_weights: Weigh classes in the loss: "none", or "balanced" by inverse frequency.
        head: Name of the classifier module; empty finds it.
        head_type: "auto" keeps the kind of classifier, "linear" puts pooling and one linear layer in its place.
        read_test: Measure on the test split at the end; leave it unread while you choose among settings.
        watch_test: Measure on the test split after every epoch, for learning curves; it chooses nothing.
        record: What to write down every epoch, joined by commas: "gradient_norms", "weight_travel"; `rekindle analyze` draws it.
        keep: Weights to keep: of the "last" epoch, or of the "best" on validation (never one right after a restart).
        precision: "auto", "32" or "bf16".
        devices: Processes that train together.
        seed: Key of every random draw.
    """

    data: str
    model: str = "resnet18"
    weights: str = "default"
    method: str = "l2"
    direction: str = "plain_sum"
    freeze_until: str = ""
    epochs: int = 0
    lr: float = 0.0
    optimizer: str = "SGD"
    batch_size: int = 32
    accumulate: int = 1
    image_size: int = 0
    image_column: str = ""
    label_column: str = ""
    split_column: str = ""
    per_class: int = 0
    fraction: float = 0.0
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    flip: bool = True
    augment: str = ""
    label_smoothing: float = 0.0
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    class_weights: Literal["none", "balanced"] = "none"
    head: str = ""
    head_type: Literal["auto", "linear"] = "auto"
    read_test: bool = True
    watch_test: bool = False
    record: str = ""
    keep: Literal["last", "best"] = "last"
    precision: Literal["auto", "32", "bf16"] = "auto"
    devices: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in LOWEST.items():
            value = getattr(self, name)
            if not low <= value < float("inf"):
                raise UserError(f"--{name.replace('_', '-')} must be at least {low}, found {value}.")
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must lie between 0 and 1, found {getattr(self, name)}.")
        if self.fraction > 1:
            raise UserError(f"--fraction must be at most 1, found {self.fraction}; 0.3 takes 30 % of each class.")
        if self.fraction and self.per_class:
            raise UserError(f"--fraction {self.fraction} and --per-class {self.per_class} both choose a subset; give one of them.")
        if self.sampler == self.class_weights == "balanced":
            raise UserError("--sampler balanced and --class-weights balanced together would even classes out twice; give one of them.")
        if not self.label_smoothing < 1:
            raise UserError(f"--label-smoothing must be below 1, found {self.label_smoothing}.")
        if self.batch_size < 2 * self.accumulate * self.devices:
            least = 2 * self.accumulate * self.devices
            raise UserError(
                f"--batch-size {self.batch_size} is too small to be split: {self.accumulate} micro-batches on {self.devices} device(s) need at least {least}."
            )
        if self.watch_test and not self.read_test:
            raise UserError("--watch-test reads the test split, and --no-read-test forbids it; leave one of them out.")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"--{name.replace('_', '-')} must be one of {', '.join(allowed)}, found {getattr(self, name)!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Fields by name, as spec.yaml holds them."""
        return dataclasses.asdict(self)

    def data_options(self) -> dict[str, Any]:
        """What `rekindle.data.open_data` is told beside the data."""
        same = ("image_column", "label_column", "split_column", "seed", "val_fraction", "test_fraction")
        return {**{name: getattr(self, name) for name in same}, "per_class": self.per_class or None, "fraction": self.fraction or None}

    def chosen(self) -> dict[str, Any]:
        """Fields that are not at their defaults, by name."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in self.to_dict().items() if value != defaults[name]}

    def run_id(self, data_hash: str, weights_hash: str) -> str:
        """Twelve hexadecimal digits from the canonical JSON of the spec and the contents' hashes; paths do not count.

        Options at their defaults are left out, so that a run keeps its id when a later version knows more options.
        """
        text = json.dumps({**self.chosen(), "data": data_hash, "weights": weights_hash}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


LOWEST: dict[str, float] = {
    "epochs": 0, "lr": 0, "batch_size": 2, "accumulate": 1, "image_size": 0, "per_class": 0, "fraction": 0, "label_smoothing": 0, "devices": 1, "seed": 0,
}  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {
    "sampler": ("shuffle", "balanced"),
    "class_weights": ("none", "balanced"),
    "head_type": ("auto", "linear"),
    "keep": ("last", "best"),
    "precision": ("auto", "32", "bf16"),
}
