"""Folders of labelled photographs: found and checked as a whole."""

import os
from collections.abc import Collection
from pathlib import Path

from rekindle.data.formats.folder_walk import Findings, holds, is_document, is_hidden, is_picture, listing, printable
from rekindle.data.splits import Found, FoundData
from rekindle.errors import UserError, some

ALIASES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_NAMES = {name for names in ALIASES.values() for name in names}
NEARLY_SPLITS = SPLIT_NAMES | {"training", "testing", "eval", "evaluation", "dev"}
LAYOUT = "wanted is FOLDER/CLASS/picture.jpg, or FOLDER/train/CLASS/picture.jpg with val and test folders beside train"

Files = dict[str, list[Path]]


def survey(root: Path) -> FoundData:
    """Classes and pictures of a folder, and everything wrong with its names and places.

    Raises:
        UserError: If it is no folder, or one that cannot be opened.
    """
    if not root.is_dir():
        what = "is a file, but no .csv, .tsv or .parquet table" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; {LAYOUT}.")
    findings = Findings(root)
    found = _find_splits(root, findings)
    classes = sorted(found["train"])
    # Problems of classes come before those of files, so that a long list cannot hide them.
    findings.problems[:0] = _class_problems(found, classes, root)
    pictures: dict[str, Found] = {split: {name: [*files] for name, files in part.items()} for split, part in found.items()}
    return FoundData(root, pictures, classes, findings, bare=not (root / "train").is_dir())


def _find_splits(root: Path, findings: Findings) -> dict[str, Files]:
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


def _find_classes(folder: Path, findings: Findings, skip: Collection[str] = ()) -> Files:
    entries = sorted((path for path in folder.iterdir() if path.name not in skip), key=lambda path: path.name)
    visible = [path for path in entries if not is_hidden(path.name)]
    folders = [path for path in visible if path.is_dir()]
    files = [path for path in visible if not path.is_dir()]
    findings.left_out(folder, "hidden or a system's own", [path for path in entries if is_hidden(path.name)])
    findings.left_out(folder, "not pictures", [path for path in files if not is_picture(path)])
    _check_loose([path for path in files if is_picture(path)], folder, bool(folders), findings)
    found: Files = {}
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


def _class_problems(found: dict[str, Files], classes: list[str], root: Path) -> list[str]:
    problems = []
    if len(classes) < 2:
        problems.append(f"{_counted(found['train'], root)}, at least 2 are needed; {LAYOUT}")
    for name, split in found.items():
        problems += [f"{root}: class {missing} of train is missing from {name}" for missing in classes if missing not in split]
        problems += [f"{root}: class {extra} of {name} is missing from train" for extra in sorted(split) if extra not in classes]
    return problems


def _counted(found: Files, root: Path) -> str:
    """Fewer than two classes in words; where the folders of a lone one look like the classes, where to point instead."""
    if not found:
        return "0 class folders"
    ((name, pictures),) = found.items()
    below = {path.relative_to(root / name).parts[0] for path in pictures if path.parent != root / name}
    return f"1 class folder ({name}{f'; if its folders are the classes, name {root / name} instead' if len(below) > 1 else ''})"
