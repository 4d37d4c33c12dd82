"""Pictures divided into splits by rules that are the same everywhere, and subsets of them; the default shares stand in `RunSpec`.

Each choice among pictures orders them by a hash of (seed, purpose, name), so that subsets are nested, do not depend
on the file system's order or on which other pictures exist, and are equal on every platform.
"""

import hashlib
import unicodedata
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rekindle.data.dataset import Dataset, Split, name_in
from rekindle.data.exclusion import NOTHING, Exclusion
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture, TableImage
from rekindle.errors import UserError

SPLITS = ("train", "val", "test")

Found = dict[str, list[Picture]]

TEST_SEED = 0  # Of the test split of data without splits, so that no seed trains on another's test pictures.


def split_key(seed: int, purpose: str, name: str) -> bytes:
    """Sorting key of a picture: a hash, so a choice is the same everywhere.

    macOS may store an accented letter as two code points; both spellings get one key.
    """
    text = unicodedata.normalize("NFC", f"{seed}\x1f{purpose}\x1f{name}")
    # A name that is not UTF-8 is refused before a run; a check still has to bear it.
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


@dataclass(frozen=True)
class SplitRules:
    """How pictures are divided.

    Attributes:
        root: The folder that names start in.
        seed: Key of validation splits and subsets.
        val_fraction: Share of the training pictures of each class that becomes the validation split where there is none,
            at least one picture a class, below 1; 0 leaves data without. Beside a subset, so many as that share of the subset.
        test_fraction: Share of each class that becomes the test split where data have no splits, above 0 and below 1; at
            least one.
        per_class: Train on exactly this many pictures a class; subsets are nested over it. Where validation is taken out of train,
            it is taken from what the subset leaves, so that no size changes what a smaller one trains on. None takes all.
        fraction: Train on this share of the training pictures of each class instead, above 0 and at most 1; at least one. Validation is
            taken from what the subset leaves, or, where that is too few, out of the subset; subsets are nested, also with those of
            `per_class`.
        defaults: "0.2", or "0.1" for the rules of rekindle 0.1.0, where the seed also decided the test split and validation was
            always taken out of the subset.
        exclusion: Pictures that neither train nor validate.
    """

    root: Path
    seed: int
    val_fraction: float
    test_fraction: float
    per_class: int | None = None
    fraction: float | None = None
    defaults: str = "0.2"
    exclusion: Exclusion = NOTHING

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"val_fraction must be at least 0 and below 1, found {self.val_fraction}; try 0.2, or 0 for no validation.")
        if not 0 < self.test_fraction < 1:
            raise UserError(f"test_fraction must lie between 0 and 1, found {self.test_fraction}; try 0.2.")
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"per_class must be at least 1, found {self.per_class}; leave it out to take all.")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UserError(f"fraction must lie above 0 and not above 1, found {self.fraction}; try 0.3.")
        if self.per_class is not None and self.fraction is not None:
            raise UserError(f"per_class ({self.per_class}) and fraction ({self.fraction}) both choose a subset; give one of them.")

    def split(self, found: dict[str, Found], bare: bool, findings: Findings) -> dict[str, Found]:
        """Take out of train what is missing, class by class: {split: {class: pictures}}."""
        chosen = {name: dict(split) for name, split in found.items() if name != "train"}
        takes_val = "val" not in found and self.val_fraction > 0
        if "val" in found:
            chosen["val"] = {name: self.exclusion.kept(pictures) for name, pictures in found["val"].items()}
            if any(found["val"].values()) and not any(chosen["val"].values()):
                findings.problems.append(f"--exclude {self.exclusion.file} names all validation pictures; keep some of them")
        for name, pool in found["train"].items():
            need = 1 + bare + takes_val
            if len(pool) < need:
                findings.problems.append(
                    f"class {name} has {len(pool)} of the at least {need} pictures that its splits need; add pictures or remove the class"
                )
                continue
            test, rest = self._take_test(pool, takes_val) if bare else ([], pool)
            rest = self.exclusion.kept(rest)
            problem = self._problem(name, len(rest), takes_val)
            if problem:
                findings.problems.append(problem)
                continue
            parts = self._split_class(rest, takes_val)
            for split, pictures in ({"test": test, **parts} if bare else parts).items():
                chosen.setdefault(split, {})[name] = pictures
        return chosen

    def choices(self) -> dict[str, Any]:
        """What data.json says of them."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("root", "exclusion")}

    def _take_test(self, pool: list[Picture], takes_val: bool) -> tuple[list[Picture], list[Picture]]:
        seed = self.seed if self.defaults == "0.1" else TEST_SEED
        return self._take(pool, "test", _share(len(pool), self.test_fraction, leave=1 + takes_val), seed)

    def _split_class(self, pool: list[Picture], takes_val: bool) -> Found:
        parts: Found = {}
        count = self._train_count(len(pool), takes_val)
        train, rest = self._take(pool, "subset", count) if count < len(pool) else (pool, [])
        if takes_val and self.defaults != "0.1" and len(rest) >= self._val_count(len(train)):
            parts["val"], _ = self._take(rest, "val", self._val_count(len(train)))
        elif takes_val:
            parts["val"], train = self._take(train, "val", _share(len(train), self.val_fraction, leave=1))
        return {**parts, "train": train}

    def _train_count(self, count: int, takes_val: bool) -> int:
        """How many of `count` pictures the subset holds."""
        if self.per_class is not None:
            return self.per_class
        if self.fraction is None:
            return count
        least = 1 + takes_val if self.defaults == "0.1" else 1
        return min(count, max(least, round(self.fraction * count)))

    def _val_count(self, train: int) -> int:
        """How many pictures validate beside so many to train on."""
        return max(1, round(train * self.val_fraction))

    def _problem(self, name: str, left: int, takes_val: bool) -> str:
        """Why a class cannot be divided that has so many training pictures, or ""."""
        if left < 1 + takes_val:
            needed = "1 to train on and 1 to validate on" if takes_val else "1"
            return (
                f"--exclude {self.exclusion.file} leaves class {name} {left} training pictures, and it needs at least {needed}; keep more"
            )
        if self.per_class is None:
            return ""
        beside = takes_val and self.defaults != "0.1"
        need = self.per_class + (self._val_count(self.per_class) if beside else 0)
        if need > left:
            most = max(size for size in range(1, left + 1) if size + (self._val_count(size) if beside else 0) <= left)
            asked = f"{need} with those for validation" if beside else "more"
            return f"class {name} has {left} training pictures, --per-class {self.per_class} asks for {asked}; use at most {most}"
        if self.per_class < 1 + takes_val and not beside:
            return f"class {name}: --per-class {self.per_class} leaves nothing to train on once validation has its picture; use --per-class 2 or more"
        return ""

    def _take(self, pool: list[Picture], purpose: str, count: int, seed: int | None = None) -> tuple[list[Picture], list[Picture]]:
        """The `count` pictures that come first by hash, and the rest, both in their own order."""
        key = self.seed if seed is None else seed
        ranked = sorted(pool, key=lambda picture: split_key(key, purpose, name_in(self.root, picture)))
        taken = set(ranked[:count])
        return [picture for picture in pool if picture in taken], [picture for picture in pool if picture not in taken]


def _share(count: int, fraction: float, leave: int) -> int:
    """A fraction of `count`, at least 1, with at least `leave` left."""
    return min(max(1, round(count * fraction)), count - leave)


@dataclass
class FoundData:
    """What was found, before it is divided.

    Attributes:
        root: The folder that names start in.
        found: {split: {class: pictures}}; "train" is always there.
        classes: In the order of their labels.
        findings: What is wrong, and what is worth saying.
        bare: There are no splits, so that a test split has to be taken out.
        choices: What data.json adds to the rules, such as names of columns.
    """

    root: Path
    found: dict[str, Found]
    classes: list[str]
    findings: Findings
    bare: bool
    choices: dict[str, Any] = field(default_factory=dict)

    def split(self, rules: SplitRules) -> Dataset:
        """The data set that the rules make of it.

        Raises:
            UserError: Listing everything that is wrong.
        """
        self.findings.raise_if_any()
        chosen = rules.split(self.found, self.bare, self.findings)
        self.findings.raise_if_any()
        splits = {name: as_split(chosen[name], self.classes) for name in SPLITS if name in chosen}
        tested = splits["test"].paths if "test" in splits else []
        notes = [*self.findings.notes, *rules.exclusion.notes(tested)]
        return Dataset(self.root, self.classes, splits, notes, {**rules.choices(), **self.choices})


def as_split(found: Found, classes: list[str]) -> Split:
    """Pictures class by class; those of a table in its own order, since it can be read quickly in no other."""
    import torch  # Only here: a list of tasks needs none.

    pairs = [(picture, label) for label, name in enumerate(classes) for picture in found.get(name, [])]
    if pairs and isinstance(pairs[0][0], TableImage):
        pairs.sort(key=lambda pair: pair[0].place)  # type: ignore[union-attr]
    return Split([picture for picture, _ in pairs], torch.tensor([label for _, label in pairs], dtype=torch.int64))
