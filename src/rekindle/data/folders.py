"""Folders of labelled photographs: found, checked as a whole, and split by rules that are the same everywhere.

Each choice among pictures orders them by a hash of (seed, purpose, relative path), so that subsets are nested, do not depend
on the file system's order or on which other pictures exist, and are equal on every platform.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rekindle.errors import UserError

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif", ".avif"}
SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini"}
TRAIN, VAL, TEST = ("train",), ("val", "validation", "valid"), ("test",)
SHOWN = 50
LAYOUT = "wanted is FOLDER/CLASS/picture.jpg, or FOLDER/train/CLASS/picture.jpg with val and test folders beside train"


@dataclass(frozen=True)
class Split:
    """Pictures of one split and their classes, (N,) int64."""

    paths: list[Path]
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A checked folder.

    Attributes:
        root: The folder.
        classes: Names in code-point order; a label is a position in it.
        splits: "train", "val" and, where there is one, "test".
        notes: Sentences on what was left out or is unusual.
        choices: Seed, fractions and subset size that the splits came from.
    """

    root: Path
    classes: list[str]
    splits: dict[str, Split]
    notes: list[str] = field(default_factory=list)
    choices: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """{split: {class: pictures}}."""
        return {
            name: dict(zip(self.classes, torch.bincount(split.labels, minlength=len(self.classes)).tolist(), strict=True))
            for name, split in self.splits.items()
        }

    def relative(self, path: Path) -> str:
        """A picture's path inside the folder, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def to_json(self) -> dict[str, Any]:
        """What data.json holds: enough to make the same splits again."""
        files = {name: [self.relative(path) for path in split.paths] for name, split in self.splits.items()}
        return {"classes": self.classes, "counts": self.counts(), **self.choices, "notes": self.notes, "files": files}


Found = dict[str, list[Path]]


@dataclass
class _Problems:
    """Everything wrong with a folder, gathered so that it can be told at once."""

    root: Path
    lines: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def raise_if_any(self) -> None:
        if not self.lines:
            return
        more = [f"  and {len(self.lines) - SHOWN} more"] if len(self.lines) > SHOWN else []
        head = "1 problem" if len(self.lines) == 1 else f"{len(self.lines)} problems"
        raise UserError("\n".join([f"{self.root} has {head}; mend it and start again:", *(f"  {line}" for line in self.lines[:SHOWN]), *more]))


def scan(root: Path, *, seed: int = 0, val_fraction: float = 0.2, test_fraction: float = 0.2, per_class: int | None = None) -> Dataset:
    """Find classes, pictures and splits.

    A folder with `train` is used as it is split, and a missing validation split is taken from train (after `per_class`). A
    bare folder of class folders is split into test, validation and training per class.

    Args:
        root: The folder.
        seed: Key of the splits and subsets.
        val_fraction: Share of the training pictures of each class that becomes the validation split.
        test_fraction: Share of a bare folder's pictures that becomes the test split.
        per_class: Take exactly this many training pictures a class; subsets are nested. None takes all.

    Raises:
        UserError: Listing everything that is wrong, by path.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; {LAYOUT}.")
    problems = _Problems(root)
    found = _find_splits(root, problems)
    classes = sorted(found["train"])
    _check_classes(found, classes, problems)
    problems.raise_if_any()
    chosen = _split(found, root, seed, val_fraction, test_fraction, per_class, problems)
    problems.raise_if_any()
    splits = {name: _as_split(chosen[name], classes) for name in ("train", "val", "test") if name in chosen}
    choices = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction, "per_class": per_class}
    return Dataset(root, classes, splits, problems.notes, choices)


def find_images(items: Sequence[Path | str]) -> list[Path]:
    """Picture files named one by one, or found below folders, sorted.

    Raises:
        UserError: If something does not exist, or nothing is found.
    """
    found: list[Path] = []
    for item in map(Path, items):
        if not item.exists():
            raise UserError(f"{item} does not exist; name picture files, or a folder of them.")
        found += [item] if item.is_file() else [path for path in _walk(item) if path.suffix.lower() in EXTENSIONS]
    if not found:
        raise UserError(f"no pictures in {', '.join(map(str, items))}; known endings: {' '.join(sorted(EXTENSIONS))}.")
    return found


def duplicates(dataset: Dataset, hashes: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of equal pictures in different splits, as relative paths; `hashes` follow the splits' order."""
    seen: dict[str, tuple[str, str]] = {}
    pairs = []
    rows = ((name, path) for name, split in dataset.splits.items() for path in split.paths)
    for (name, path), digest in zip(rows, hashes, strict=True):
        first = seen.setdefault(digest, (name, dataset.relative(path)))
        if first[0] != name:
            pairs.append((first[1], dataset.relative(path)))
    return pairs


def rank(seed: int, purpose: str, name: str) -> bytes:
    """Sorting key of a picture: a hash, so a choice is the same everywhere."""
    return hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{name}".encode("utf-8", "surrogateescape"), digest_size=16).digest()


def _find_splits(root: Path, problems: _Problems) -> dict[str, Found]:
    names = {path.name for path in root.iterdir() if path.is_dir()}
    if not names & set(TRAIN):
        stray = sorted(names & {*VAL, *TEST})
        if stray:
            problems.lines.append(f"{root / stray[0]}: a split without a train folder beside it")
        return {"train": _find_classes(root, problems)}
    found = {}
    for split, aliases in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        present = [name for name in aliases if name in names]
        if len(present) > 1:
            problems.lines.append(f"{root}: both {' and '.join(present)}; keep one validation folder")
        if present:
            found[split] = _find_classes(root / present[0], problems)
    used = {*TRAIN, *VAL, *TEST}
    for name in sorted(names - used):
        problems.notes.append(f"{root / name} stands beside the splits and was left out.")
    return found


def _find_classes(folder: Path, problems: _Problems) -> Found:
    found: Found = {}
    for entry in sorted(folder.iterdir()):
        if _hidden(entry):
            problems.notes.append(f"{entry} is hidden or a system's own and was left out.")
        elif entry.is_dir():
            found[entry.name] = _find_class(entry, problems)
        elif entry.suffix.lower() in EXTENSIONS:
            problems.lines.append(f"{entry}: a picture outside any class folder")
    return found


def _find_class(folder: Path, problems: _Problems) -> list[Path]:
    pictures, others = [], []
    for path in _walk(folder, problems.notes):
        (pictures if path.suffix.lower() in EXTENSIONS else others).append(path)
    problems.lines += [f"{path}: not a picture by its ending ({path.suffix or 'none'}); move it elsewhere" for path in others]
    if not pictures:
        problems.lines.append(f"{folder}: an empty class; add pictures or remove the folder")
    return sorted(pictures, key=lambda path: path.as_posix())


def _walk(folder: Path, notes: list[str] | None = None) -> Iterator[Path]:
    """Files below a folder, sorted, following each linked folder once; hidden entries are left out and noted."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(n for n in [*folders, *files] if _hidden(Path(n))):
            if notes is not None:
                notes.append(f"{Path(place) / name} is hidden or a system's own and was left out.")
        folders[:] = sorted(name for name in folders if not _hidden(Path(name)))
        yield from (Path(place) / name for name in sorted(files) if not _hidden(Path(name)))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in SYSTEM


def _check_classes(found: dict[str, Found], classes: list[str], problems: _Problems) -> None:
    if len(classes) < 2:
        listed = f" ({classes[0]})" if classes else ""
        problems.lines.append(f"{len(classes)} class folders{listed}, at least 2 are needed; {LAYOUT}")
    for name, split in found.items():
        for missing in sorted(set(classes) - set(split)):
            problems.lines.append(f"{problems.root / name}: class {missing} of train is missing")
        for extra in sorted(set(split) - set(classes)):
            problems.lines.append(f"{problems.root / name / extra}: a class that train does not have")


def _split(
    found: dict[str, Found], root: Path, seed: int, val_fraction: float, test_fraction: float, per_class: int | None, problems: _Problems
) -> dict[str, Found]:
    bare = not (root / "train").is_dir()
    chosen = {name: dict(split) for name, split in found.items()}
    for name in sorted(found["train"]):
        pool = found["train"][name]
        if bare:
            test, pool = _take(pool, root, seed, "test", _share(len(pool), test_fraction))
            chosen.setdefault("test", {})[name] = test
        if per_class is not None:
            if per_class > len(pool):
                problems.lines.append(f"{name}: {len(pool)} training pictures, --per-class {per_class} asks for more")
                continue
            pool, _ = _take(pool, root, seed, "subset", per_class)
        if "val" not in found:
            val, pool = _take(pool, root, seed, "val", _share(len(pool), val_fraction))
            chosen.setdefault("val", {})[name] = val
        chosen["train"][name] = pool
        if not pool or (("val" not in found) and not chosen["val"][name]) or (bare and not chosen["test"][name]):
            need = 1 + ("val" not in found) + bare
            problems.lines.append(f"{name}: too few pictures to split; at least {need} are needed")
    return chosen


def _share(count: int, fraction: float) -> int:
    """At least one picture, and at least one left."""
    return min(max(1, round(count * fraction)), max(count - 1, 0))


def _take(pool: list[Path], root: Path, seed: int, purpose: str, count: int) -> tuple[list[Path], list[Path]]:
    """The `count` pictures that come first by hash, and the rest, both in path order."""
    ranked = sorted(pool, key=lambda path: rank(seed, purpose, path.relative_to(root).as_posix()))
    taken = set(ranked[:count])
    return [path for path in pool if path in taken], [path for path in pool if path not in taken]


def _as_split(found: Found, classes: list[str]) -> Split:
    paths = [path for name in classes for path in found[name]]
    labels = [label for label, name in enumerate(classes) for _ in found[name]]
    return Split(paths, torch.tensor(labels, dtype=torch.int64))
