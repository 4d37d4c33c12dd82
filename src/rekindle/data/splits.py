"""Pictures divided into splits by rules that are the same everywhere, and subsets of them; the default shares stand in `RunSpec`.

Each choice among pictures orders them by a hash of (seed, purpose, name), so that subsets are nested, do not depend
on the file system's order or on which other pictures exist, and are equal on every platform.
"""

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.data.dataset import Dataset, Split, name_in
from rekindle.data.exclusion import NOTHING, Exclusion
from rekindle.data.formats.folder_walk import Findings
from rekindle.data.formats.images import Picture, TableImage
from rekindle.data.grouping import Part, dealt, in_parts, straddling
from rekindle.errors import UserError, agree, number_of, some

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "val", "test")

Found = dict[str, list[Picture]]

GRAVE, WORSE = 10**6, 10**12  # To be without a class, for a test split and for training, where 1 is for validation.
TEST_SEED = 0  # Of the test split of data without splits, so that no seed trains on another's test pictures.


def split_key(seed: int, purpose: str, name: str) -> bytes:
    """Sorting key of a picture: a hash, so a choice is the same everywhere.

    macOS may store an accented letter as two code points; both spellings get one key.

    Returns:
        16 bytes.

    Examples:
        >>> split_key(0, "test", "a.jpg") == split_key(0, "test", "a.jpg"), len(split_key(0, "test", "a.jpg"))
        (True, 16)
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
        fold: Such as "2/5": training and validation pictures are divided into five folds, the second of which validates; None does not.
    """

    root: Path
    seed: int
    val_fraction: float
    test_fraction: float
    per_class: int | None = None
    fraction: float | None = None
    defaults: str = "0.2"
    exclusion: Exclusion = NOTHING
    fold: str | None = None

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

    def split(
        self, found: dict[str, Found], bare: bool, findings: Findings, groups: Mapping[Picture, str] | None = None
    ) -> dict[str, Found]:
        """Take out of train what is missing: {split: {class: pictures}}; no group is torn, where there are some.

        Returns:
            Pictures by split and class; a split of which nothing was taken may be missing.
        """
        chosen = {name: dict(split) for name, split in found.items() if name != "train"}
        if "val" in found:
            chosen["val"] = {name: self.exclusion.kept(pictures) for name, pictures in found["val"].items()}
            if any(found["val"].values()) and not any(chosen["val"].values()):
                findings.problems.append(f"--exclude {self.exclusion.file} names all validation pictures; keep some of them")
        if groups or self.fold:
            return self._split_as_one(chosen, found["train"], bare, findings, groups or {})
        takes_val = "val" not in found and self.val_fraction > 0
        for name, pool in found["train"].items():
            need = 1 + bare + takes_val
            if _is_too_small(name, pool, need, findings):
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

    def _split_as_one(
        self, chosen: dict[str, Found], pool: Found, bare: bool, findings: Findings, groups: Mapping[Picture, str]
    ) -> dict[str, Found]:
        """All classes together, since a group may span several, and folds are to be of one size."""
        taken = "val" not in chosen
        if self.fold and not taken:
            given = chosen.pop("val")
            pool = {name: [*pictures, *given.get(name, [])] for name, pictures in pool.items()}
        small = [_is_too_small(name, pictures, 2 + bare, findings) for name, pictures in pool.items() if not groups]
        if any(small):
            return chosen
        if bare:
            chosen["test"], pool = self._test_of(pool, groups)
        pool = {name: self.exclusion.kept(pictures) for name, pictures in pool.items()}
        if self.fold:
            chosen["val"], pool = self._fold_of(pool, groups, findings)
        elif taken and self.val_fraction:
            parts = [Part(self.val_fraction), Part(1 - self.val_fraction, (WORSE,))]
            chosen["val"], pool = in_parts(pool, groups, lambda name: split_key(self.seed, "val", name), parts)
        chosen["train"] = {name: self._subset_of(name, pictures, findings) for name, pictures in pool.items()}
        if taken and not self.fold and (self.per_class or self.fraction) and "val" in chosen:
            counts = {name: self._val_count(len(pictures)) for name, pictures in chosen["train"].items()}
            chosen["val"] = {name: self._take(pictures, "val", counts[name])[0] for name, pictures in chosen["val"].items()}
        self._check_parts(chosen, [*(["test"] if bare else []), *(["val"] if taken and "val" in chosen else [])], findings)
        return chosen

    def _test_of(self, pool: Found, groups: Mapping[Picture, str]) -> tuple[Found, Found]:
        """The test split and the rest, which keeps two groups of a class where it has three."""
        if not groups:
            divided = {name: self._take_test(pictures, takes_val=True) for name, pictures in pool.items()}
            return {name: test for name, (test, _) in divided.items()}, {name: rest for name, (_, rest) in divided.items()}
        seed = self.seed if self.defaults == "0.1" else TEST_SEED
        parts = [Part(self.test_fraction, (GRAVE,)), Part(1 - self.test_fraction, (WORSE, 1))]
        test, rest = in_parts(pool, groups, lambda name: split_key(seed, "test", name), parts)
        return test, rest

    def _fold_of(self, pool: Found, groups: Mapping[Picture, str], findings: Findings) -> tuple[Found, Found]:
        """The pictures of this fold, and those of the others. What any of the folds would lack is told by each."""
        number, count = map(int, (self.fold or "").split("/"))
        if groups:
            parts = in_parts(pool, groups, lambda name: split_key(self.seed, "fold", name), [Part(1 / count)] * count)
        else:
            parts = dealt(pool, lambda picture: split_key(self.seed, "fold", name_in(self.root, picture)), count)
        what = "groups" if groups else "pictures"
        if not all(any(part.values()) for part in parts):
            there = len({groups.get(picture, picture) for pictures in pool.values() for picture in pictures})
            findings.problems.append(
                f"{number_of(count, 'fold', 'needs')} at least as many {what}, and there {agree(there, 'is')} {there} to train on; take fewer folds"
            )
        for name, pictures in pool.items():
            if pictures and any(len(part[name]) == len(pictures) for part in parts):
                findings.problems.append(
                    f"class {name} has {number_of(len(pictures), 'picture')}, all in one of the {number_of(count, 'fold')}, which would leave none to train on; "
                    f"add {what}, or remove the class"
                )
        others = {picture for place, part in enumerate(parts, 1) if place != number for pictures in part.values() for picture in pictures}
        return parts[number - 1], {name: [picture for picture in pictures if picture in others] for name, pictures in pool.items()}

    def _subset_of(self, name: str, pool: list[Picture], findings: Findings) -> list[Picture]:
        """The subset of what a class has for training."""
        count = self._train_count(len(pool), takes_val=False)
        if self.per_class is not None and count > len(pool) > 0:
            findings.problems.append(
                f"class {name} has {number_of(len(pool), 'training picture')} beside those that are held out, --per-class {self.per_class} asks for more; "
                f"use at most {len(pool)}"
            )
        return self._take(pool, "subset", count)[0] if count < len(pool) else pool

    def _check_parts(self, chosen: dict[str, Found], taken: list[str], findings: Findings) -> None:
        """Refuse a split without pictures and a class without any to train on; say which classes the splits that were taken out lack."""
        empty = [split for split in taken if not any(chosen[split].values())]
        if empty:
            few = "there are too few groups" if not self.fold else "there are too few pictures"
            findings.problems.append(f"nothing is left for {' and '.join(empty)}: {few}; add some, or give splits of your own")
        for name, pictures in chosen["train"].items():
            if not pictures and not empty:
                findings.problems.append(f"class {name} has no pictures to train on; add some, or remove the class")
        for split in taken:
            missing = [name for name, pictures in chosen[split].items() if not pictures]
            if missing and split not in empty:
                findings.notes.append(
                    f"{split} has no pictures of {some(missing)}: too few groups hold {agree(len(missing), 'it')} for one in each split."
                )

    def choices(self) -> dict[str, Any]:
        """What data.json says of them.

        Returns:
            Plain values by name.
        """
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
            return f"--exclude {self.exclusion.file} leaves class {name} {number_of(left, 'training picture')}, and it needs at least {needed}; keep more"
        if self.per_class is None:
            return ""
        beside = takes_val and self.defaults != "0.1"
        need = self.per_class + (self._val_count(self.per_class) if beside else 0)
        if need > left:
            most = max(size for size in range(1, left + 1) if size + (self._val_count(size) if beside else 0) <= left)
            asked = f"{need} with those for validation" if beside else "more"
            return (
                f"class {name} has {number_of(left, 'training picture')}, --per-class {self.per_class} asks for {asked}; use at most {most}"
            )
        if self.per_class < 1 + takes_val and not beside:
            return f"class {name}: --per-class {self.per_class} leaves nothing to train on once validation has its picture; use --per-class 2 or more"
        return ""

    def _take(self, pool: list[Picture], purpose: str, count: int, seed: int | None = None) -> tuple[list[Picture], list[Picture]]:
        """The `count` pictures that come first by hash, and the rest, both in their own order."""
        key = self.seed if seed is None else seed
        ranked = sorted(pool, key=lambda picture: split_key(key, purpose, name_in(self.root, picture)))
        taken = set(ranked[:count])
        return [picture for picture in pool if picture in taken], [picture for picture in pool if picture not in taken]


def withhold(dataset: Dataset, share: float, seed: int) -> "tuple[Tensor, Tensor]":
    """Divide the training pictures into those that stay and a share that a method keeps out of training.

    Of each class the share is taken, at least one picture, but never the last one. Where there are groups, whole ones are taken, so that
    the share is met as nearly as they allow; a class whose training pictures are all in one group has none held out.

    Args:
        dataset: With a training split.
        share: Above 0 and below 1.
        seed: Key of the choice.

    Returns:
        (positions that stay, positions held out) in the training split, both in its order.
    """
    import torch

    split, held = dataset.splits["train"], set[Picture]()
    pool: Found = {name: [] for name in dataset.classes}
    for picture, label in zip(split.paths, split.labels.tolist(), strict=True):
        pool[dataset.classes[label]].append(picture)
    if dataset.groups:
        parts = [Part(share), Part(1 - share, (WORSE,))]
        taken, _ = in_parts(pool, dataset.groups, lambda name: split_key(seed, "held_out", name), parts)
        held.update(*taken.values())
    else:
        for pictures in pool.values():
            ranked = sorted(pictures, key=lambda picture: split_key(seed, "held_out", name_in(dataset.root, picture)))
            held.update(ranked[: max(0, _share(len(ranked), share, leave=1))])
    chosen = torch.tensor([picture in held for picture in split.paths])
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def _is_too_small(name: str, pool: list[Picture], need: int, findings: Findings) -> bool:
    """Whether a class has fewer pictures than its splits need, which is then told."""
    if len(pool) < need:
        findings.problems.append(
            f"class {name} has {len(pool)} of the at least {number_of(need, 'picture')} that its splits need; add pictures or remove the class"
        )
    return len(pool) < need


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
        groups: The group of each picture, which no split may tear; empty where there are none.
    """

    root: Path
    found: dict[str, Found]
    classes: list[str]
    findings: Findings
    bare: bool
    choices: dict[str, Any] = field(default_factory=dict)
    groups: dict[Picture, str] = field(default_factory=dict)

    def split(self, rules: SplitRules) -> Dataset:
        """The data set that the rules make of it.

        Returns:
            The data set, with its notes.

        Raises:
            UserError: Listing everything that is wrong.
        """
        self.findings.raise_if_any()
        chosen = rules.split(self.found, self.bare, self.findings, self.groups)
        self.findings.raise_if_any()
        splits = {name: as_split(chosen[name], self.classes) for name in SPLITS if name in chosen}
        tested = splits["test"].paths if "test" in splits else []
        notes = [*self.findings.notes, *rules.exclusion.notes(tested)]
        torn = straddling(chosen, self.groups) if self.groups else []
        return Dataset(self.root, self.classes, splits, notes, {**rules.choices(), **self.choices}, torn, self.groups)


def as_split(found: Found, classes: list[str]) -> Split:
    """Pictures class by class; those of a table in its own order, since it can be read quickly in no other.

    Returns:
        Pictures and their labels, in one order.
    """
    import torch  # Only here: a list of tasks needs none.

    pairs = [(picture, label) for label, name in enumerate(classes) for picture in found.get(name, [])]
    if pairs and isinstance(pairs[0][0], TableImage):
        pairs.sort(key=lambda pair: pair[0].place)  # type: ignore[union-attr]
    return Split([picture for picture, _ in pairs], torch.tensor([label for _, label in pairs], dtype=torch.int64))
