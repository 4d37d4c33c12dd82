"""Folders of labelled photographs: found, checked as a whole, and split by rules that are the same everywhere.

Each choice among pictures orders them by a hash of (seed, purpose, relative path), so that subsets are nested, do not depend
on the file system's order or on which other pictures exist, and are equal on every platform.
"""

import hashlib
import os
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from rekindle.data.dataset import Dataset, Split
from rekindle.data.tree import Findings, holds, is_document, is_hidden, is_picture, listing, printable, some
from rekindle.errors import UserError

ALIASES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_NAMES = {name for names in ALIASES.values() for name in names}
NEARLY_SPLITS = SPLIT_NAMES | {"training", "testing", "eval", "evaluation", "dev"}
LAYOUT = "wanted is FOLDER/CLASS/picture.jpg, or FOLDER/train/CLASS/picture.jpg with val and test folders beside train"

Found = dict[str, list[Path]]


def scan(
    root: Path | str, *, seed: int = 0, val_fraction: float = 0.2, test_fraction: float = 0.2, per_class: int | None = None
) -> Dataset:
    """Find classes, pictures and splits.

    A folder with `train` is used as it is split, and a missing validation split is taken from train (after `per_class`). A
    bare folder of class folders is split into test, validation and training per class.

    Args:
        root: The folder.
        seed: Key of the splits and subsets.
        val_fraction: Share of the training pictures of each class that becomes the validation split, above 0 and below 1;
            at least one picture a class.
        test_fraction: Share of each class of a bare folder that becomes the test split, above 0 and below 1; at least one.
        per_class: Take exactly this many training pictures a class before validation is taken out; subsets are nested.
            None takes all.

    Raises:
        UserError: Listing everything that is wrong, by path.
    """
    root = Path(root)
    rules = Rules(root, seed, val_fraction, test_fraction, per_class)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; {LAYOUT}.")
    findings = Findings(root)
    try:
        found = _find_splits(root, findings)
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be opened; allow reading it, or copy the pictures to a folder of your own.") from None
    classes = sorted(found["train"])
    # Problems of classes come before those of files, so that a long list cannot hide them.
    findings.problems[:0] = _class_problems(found, classes, root)
    findings.raise_if_any()
    chosen = rules.divide(found, bare=not (root / "train").is_dir(), findings=findings)
    findings.raise_if_any()
    splits = {name: _as_split(chosen[name], classes) for name in ALIASES if name in chosen}
    choices = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction, "per_class": per_class}
    return Dataset(root, classes, splits, findings.notes, choices)


def rank(seed: int, purpose: str, name: str) -> bytes:
    """Sorting key of a picture: a hash, so a choice is the same everywhere.

    macOS may store an accented letter as two code points; both spellings get one key.
    """
    text = unicodedata.normalize("NFC", f"{seed}\x1f{purpose}\x1f{name}")
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Rules:
    """How pictures are divided; see `scan` for the fields."""

    root: Path
    seed: int
    val_fraction: float
    test_fraction: float
    per_class: int | None

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{name} must lie between 0 and 1, found {getattr(self, name)}; try 0.2.")
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"per_class must be at least 1, found {self.per_class}; leave it out to take all.")

    def divide(self, found: dict[str, Found], bare: bool, findings: Findings) -> dict[str, Found]:
        """Take out of train what is missing, class by class: {split: {class: pictures}}."""
        chosen = {name: dict(split) for name, split in found.items() if name != "train"}
        for name, pool in sorted(found["train"].items()):
            problem = self._problem(name, pool, bare, "val" not in found)
            if problem:
                findings.problems.append(problem)
                continue
            for split, pictures in self._divide_class(pool, bare, "val" not in found).items():
                chosen.setdefault(split, {})[name] = pictures
        return chosen

    def _divide_class(self, pool: list[Path], takes_test: bool, takes_val: bool) -> Found:
        parts = {}
        if takes_test:
            parts["test"], pool = self._take(pool, "test", self._test_count(pool, takes_val))
        if self.per_class is not None:
            pool, _ = self._take(pool, "subset", self.per_class)
        if takes_val:
            parts["val"], pool = self._take(pool, "val", _share(len(pool), self.val_fraction, leave=1))
        return {**parts, "train": pool}

    def _problem(self, name: str, pool: list[Path], takes_test: bool, takes_val: bool) -> str:
        """Why a class cannot be divided, or ""."""
        need = 1 + takes_test + takes_val
        if len(pool) < need:
            return f"class {name} has {len(pool)} of the at least {need} pictures that its splits need; add pictures or remove the class"
        if self.per_class is None:
            return ""
        left = len(pool) - (self._test_count(pool, takes_val) if takes_test else 0)
        if self.per_class > left:
            return f"class {name} has {left} training pictures, --per-class {self.per_class} asks for more; use at most {left}"
        if self.per_class < 1 + takes_val:
            return f"class {name}: --per-class {self.per_class} leaves nothing to train on once validation has its picture; use --per-class 2 or more"
        return ""

    def _test_count(self, pool: list[Path], takes_val: bool) -> int:
        return _share(len(pool), self.test_fraction, leave=1 + takes_val)

    def _take(self, pool: list[Path], purpose: str, count: int) -> tuple[list[Path], list[Path]]:
        """The `count` pictures that come first by hash, and the rest, both in path order."""
        ranked = sorted(pool, key=lambda path: rank(self.seed, purpose, path.relative_to(self.root).as_posix()))
        taken = set(ranked[:count])
        return [path for path in pool if path in taken], [path for path in pool if path not in taken]


def _share(count: int, fraction: float, leave: int) -> int:
    """A fraction of `count`, at least 1, with at least `leave` left."""
    return min(max(1, round(count * fraction)), count - leave)


def _find_splits(root: Path, findings: Findings) -> dict[str, Found]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    nearly = [name for name in names if name not in SPLIT_NAMES and name.casefold() in NEARLY_SPLITS]
    findings.problems += [
        f"{root / name}: a split or a class, by its name; call it train, val or test, or give the class another name" for name in nearly
    ]
    if "train" not in names:
        stray = [name for name in names if name in SPLIT_NAMES]
        findings.problems += [f"{root / name}: a split without a train folder beside it" for name in stray]
        return {"train": _find_classes(root, findings, skip={*stray, *nearly})}
    _note_neighbours(root, findings, skip={*SPLIT_NAMES, *nearly})
    found = {}
    for split, aliases in ALIASES.items():
        present = [name for name in aliases if name in names]
        if len(present) > 1:
            findings.problems.append(f"{root}: both {' and '.join(present)}; keep one validation folder")
        if present:
            found[split] = _find_classes(root / present[0], findings)
    return found


def _note_neighbours(root: Path, findings: Findings, skip: Collection[str]) -> None:
    entries = sorted(path for path in root.iterdir() if path.name not in skip)
    findings.left_out(root, "hidden or a system's own", [path for path in entries if is_hidden(path.name)])
    findings.left_out(root, "beside the splits", [path for path in entries if not is_hidden(path.name)])


def _find_classes(folder: Path, findings: Findings, skip: Collection[str] = ()) -> Found:
    entries = sorted((path for path in folder.iterdir() if path.name not in skip), key=lambda path: path.name)
    visible = [path for path in entries if not is_hidden(path.name)]
    folders = [path for path in visible if path.is_dir()]
    files = [path for path in visible if not path.is_dir()]
    findings.left_out(folder, "hidden or a system's own", [path for path in entries if is_hidden(path.name)])
    findings.left_out(folder, "not pictures", [path for path in files if not is_picture(path)])
    _check_loose([path for path in files if is_picture(path)], folder, bool(folders), findings)
    found: Found = {}
    homes: dict[str, str] = {}
    for path in folders:
        real = os.path.realpath(path)
        if holds(real, os.path.realpath(folder)):
            findings.problems.append(f"{path}: a link to a folder that holds it; remove the link")
        elif real in homes:
            findings.problems.append(f"{path}: the same folder as class {homes[real]}; remove one")
        else:
            homes[real] = path.name
            found[path.name] = _find_class(path, findings)
    return found


def _check_loose(pictures: list[Path], folder: Path, has_classes: bool, findings: Findings) -> None:
    if has_classes:
        findings.problems += [f"{path}: a picture outside any class folder" for path in pictures]
    elif pictures:
        names = some([path.name for path in pictures])
        findings.problems.append(
            f"{folder}: pictures but no class folders ({names}); put the pictures of each class in a folder of its own"
        )


def _find_class(folder: Path, findings: Findings) -> list[Path]:
    below = listing(folder, findings.root)
    pictures = below.pictures()
    nested = [path for path in pictures if path.parent != folder]
    findings.left_out(folder, "hidden or a system's own", below.hidden)
    findings.left_out(folder, "links to a place counted already", below.loops)
    findings.left_out(folder, "documents", [path for path in below.files if not is_picture(path) and is_document(path)])
    if nested:
        findings.notes.append(f"{folder}: {len(nested)} pictures in folders further down count as this class.")
    findings.problems += [f"{path}: a folder that cannot be opened; allow reading it" for path in below.closed]
    findings.problems += [problem for path in below.files if (problem := _file_problem(path))]
    if not pictures:
        findings.problems.append(f"{folder}: an empty class; add pictures or remove the folder")
    return pictures


def _file_problem(path: Path) -> str:
    """What is wrong with a file in a class folder, short of opening it, or ""."""
    if printable(path.as_posix()) != path.as_posix():
        return f"{path}: a name that is not UTF-8; rename it"
    if not path.is_file():
        return f"{path}: {'a link to nothing' if path.is_symlink() else 'no ordinary file'}; remove it"
    if not is_picture(path) and not is_document(path):
        return f"{path}: no picture by its ending ({path.suffix or 'none'}); convert or remove it"
    return ""


def _class_problems(found: dict[str, Found], classes: list[str], root: Path) -> list[str]:
    problems = []
    if len(classes) < 2:
        problems.append(f"{_counted(found['train'], root)}, at least 2 are needed; {LAYOUT}")
    for name, split in found.items():
        problems += [f"{root}: class {missing} of train is missing from {name}" for missing in classes if missing not in split]
        problems += [f"{root}: class {extra} of {name} is missing from train" for extra in sorted(split) if extra not in classes]
    return problems


def _counted(found: Found, root: Path) -> str:
    """Fewer than two classes in words; where the folders of a lone one look like the classes, where to point instead."""
    if not found:
        return "0 class folders"
    ((name, pictures),) = found.items()
    below = {path.relative_to(root / name).parts[0] for path in pictures if path.parent != root / name}
    return f"1 class folder ({name}{f'; if its folders are the classes, name {root / name} instead' if len(below) > 1 else ''})"


def _as_split(found: Found, classes: list[str]) -> Split:
    paths = [path for name in classes for path in found[name]]
    labels = [label for label, name in enumerate(classes) for _ in found[name]]
    return Split(paths, torch.tensor(labels, dtype=torch.int64))
