"""Folders of labelled photographs: found and checked as a whole."""

import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from rekindle.data.formats.folder_walk import Findings, holds, listing
from rekindle.data.formats.names import is_document, is_hidden, is_picture, is_table, not_text, one_name, printable, split_word
from rekindle.data.formats.outputs import MOST_LEVELS, is_figure, is_output, is_result
from rekindle.data.splits import Found, FoundData
from rekindle.errors import UserError, agree, number_of, some

ALIASES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_NAMES = {name for names in ALIASES.values() for name in names}
NEARLY_SPLITS = SPLIT_NAMES | {"training", "testing", "eval", "evaluation", "dev"}
LAYOUT = "wanted is FOLDER/CLASS/picture.jpg, or FOLDER/train/CLASS/picture.jpg with val and test folders beside train"

OWN = "written by rekindle"

Files = dict[str, list[Path]]


def survey(root: Path) -> FoundData:
    """Classes and pictures of a folder, and everything wrong with its names and places.

    Returns:
        What was found; its problems are all told at once, and none is raised here.

    Raises:
        UserError: If it is no folder, or one that cannot be opened.
    """
    if not root.is_dir():
        what = "is a file, but no .csv, .tsv, .jsonl or .parquet table" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; {LAYOUT}.")
    if is_result([path.name for path in root.iterdir()]):
        raise UserError(f"{root} is a folder that rekindle wrote, a run's or a study's, and holds no data; {LAYOUT}.")
    findings = Findings(root)
    found = _find_splits(root, findings)
    findings.merge_notes()
    classes = sorted(found["train"])
    # Problems of classes come before those of files, so that a long list cannot hide them.
    findings.problems[:0] = _class_problems(found, classes, root)
    pictures: dict[str, Found] = {split: {name: [*files] for name, files in part.items()} for split, part in found.items()}
    return FoundData(root, pictures, classes, findings, bare=not (root / "train").is_dir())


def _find_splits(root: Path, findings: Findings) -> dict[str, Files]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
    names = [path.name for path in folders if not is_output(path)]
    nearly = [name for name in names if name not in SPLIT_NAMES and name.casefold() in NEARLY_SPLITS]
    findings.problems += [
        f"{root / name}: a split or a class, by its name; call it train, val or test, or give the class another name" for name in nearly
    ]
    if "train" not in names:
        stray = [name for name in names if name in SPLIT_NAMES]
        findings.problems += [f"{root / name}: a split without a train folder beside it" for name in stray]
        return {"train": _find_classes(root, findings, skip={*stray, *nearly})}
    _note_neighbours(root, findings, skip={*SPLIT_NAMES, *nearly})
    found = {"train": _find_classes(_unwrapped(root / "train"), findings)}
    for split, aliases in ALIASES.items():
        present = [name for name in aliases if name in names]
        if len(present) > 1:
            findings.problems.append(f"{root}: both {' and '.join(present)}; keep one validation folder")
        if present and split != "train":
            folder = _unwrapped(root / present[0])
            if not _note_unlabelled(folder, found["train"], findings):
                found[split] = _find_classes(folder, findings)
    return found


def _unwrapped(split: Path) -> Path:
    """The folder of the classes where an archive has put a split into a folder of the same split, as in train/train/CLASS."""
    entries = [path for path in split.iterdir() if not is_hidden(path.name) and not is_document(path)]
    if len(entries) == 1 and entries[0].is_dir() and split_word(entries[0].name)[0] == split_word(split.name)[0]:
        below = [path for path in entries[0].iterdir() if not is_hidden(path.name)]
        if split.name != "train" or any(path.is_dir() for path in below):
            return _unwrapped(entries[0])
    return split


def _note_unlabelled(split: Path, classes: Collection[str], findings: Findings) -> bool:
    """Leave a split out, with a note, whose pictures lie in no folder of a class: flat, or all in one folder such as "unknown"."""
    visible = [path for path in split.iterdir() if not is_hidden(path.name)]
    folders = [path for path in visible if path.is_dir() and not is_output(path)]
    flat = [path for path in visible if not path.is_dir() and is_picture(path) and not is_figure(path, [entry.name for entry in visible])]
    known = {one_name(name).casefold() for name in classes}
    if len(folders) > 1 or any(one_name(path.name).casefold() in known for path in folders):
        return False
    pictures = [*flat, *(path for folder in folders for path in listing(folder, findings.root).pictures())]
    if not pictures and folders:
        return False
    where = f", in {folders[0].name}, which is no class of train" if folders else ""
    findings.notes.append(
        printable(
            f"{split}: left out, without labels: {number_of(len(pictures), 'picture')}{where}; put each class's into a folder of its name to use them."
        )
        if pictures
        else printable(f"{split}: left out, it holds no pictures.")
    )
    return True


def _note_neighbours(root: Path, findings: Findings, skip: Collection[str]) -> None:
    entries = sorted(path for path in root.iterdir() if path.name not in skip)
    own = [path for path in entries if not is_hidden(path.name) and _is_own(path, entries)]
    findings.left_out(root, "hidden or a system's own", [path for path in entries if is_hidden(path.name)])
    findings.left_out(root, OWN, own)
    findings.left_out(root, "beside the splits", [path for path in entries if not is_hidden(path.name) and path not in own])


def _is_own(path: Path, beside: Collection[Path]) -> bool:
    return is_output(path) if path.is_dir() else is_figure(path, {entry.name for entry in beside})


def _find_classes(folder: Path, findings: Findings, skip: Collection[str] = ()) -> Files:
    entries = sorted((path for path in folder.iterdir() if path.name not in skip), key=lambda path: path.name)
    visible = [path for path in entries if not is_hidden(path.name)]
    own = [path for path in visible if _is_own(path, visible)]
    folders = [path for path in visible if path.is_dir() and path not in own]
    files = [path for path in visible if not path.is_dir() and path not in own]
    findings.left_out(folder, "hidden or a system's own", [path for path in entries if is_hidden(path.name)])
    findings.left_out(folder, OWN, own)
    findings.left_out(folder, "not pictures", [path for path in files if not is_picture(path)])
    _check_loose([path for path in files if is_picture(path)], folder, bool(folders), findings)
    found: Files = {}
    homes: dict[str, str] = {}
    for path in folders:
        real, name = os.path.realpath(path), one_name(path.name)
        if holds(real, os.path.realpath(folder)):
            findings.problems.append(f"{path}: a link to a folder that holds it; remove the link")
        elif real in homes:
            findings.problems.append(f"{path}: the same folder as class {homes[real]}; remove one")
        elif name in found:
            findings.problems.append(f"{path}: the same name as another class, its accents stored in another way; put both into one folder")
        else:
            homes[real] = path.name
            found[name] = _find_class(path, findings)
    _check_nesting(folder, found, findings)
    return found


def _check_nesting(folder: Path, found: Files, findings: Findings) -> None:
    """Refuse classes that are splits by their names, or that hold splits; note those that hold folders of the same names."""
    homes = {name: {path.parent for path in pictures} for name, pictures in found.items()}
    inner = {name: [place.relative_to(folder).parts[1:] for place in places] for name, places in homes.items()}
    deep = {name: {parts[0] for parts in places} for name, places in inner.items() if places and all(places)}
    problems, like_splits = [], _like_splits(found, deep)
    for name in like_splits:
        word = split_word(name)[0]
        called = f"call it {word}" if word in ALIASES else "move it elsewhere"
        problems.append(
            f"{folder / name}: a split by its name, not a class; {called} so that train, val and test lie side by side: {LAYOUT}"
        )
    for name, places in inner.items():
        words = {split_word(part)[0] for parts in places for part in parts} - {""}
        if len(words) > 1 and name not in like_splits:
            problems.append(f"{folder / name}: splits inside a class ({' and '.join(sorted(words))}); put them above the classes: {LAYOUT}")
    findings.problems += problems
    alike: dict[frozenset[str], list[str]] = defaultdict(list)
    for name, below in deep.items():
        alike[frozenset(below)].append(name)
    for shared, names in alike.items():
        if len(names) > 1 and len(shared) > 1 and not problems:
            findings.notes.append(
                printable(
                    f"{folder}: classes {some(names)} hold no pictures of their own but folders of the same names ({some(sorted(shared))}); "
                    f"if those are the classes, this is not what you want: {LAYOUT}."
                )
            )


def _like_splits(found: Files, deep: Collection[str]) -> list[str]:
    """Folders in the place of classes that are splits by their names.

    A name alone is too little, since bullet_train may be a class: such a folder holds no pictures but folders of them, or
    lies beside one of another split whose name is else the same, as train_images beside test_images.
    """
    words = {name: split_word(name) for name in found if split_word(name)[0]}
    splits = defaultdict(set)
    for word, rest in words.values():
        splits[rest].add(word)
    return [name for name, (_, rest) in words.items() if name in deep or len(splits[rest]) > 1]


def _check_loose(pictures: list[Path], folder: Path, has_classes: bool, findings: Findings) -> None:
    if has_classes:
        findings.problems += [f"{path}: a picture outside any class folder" for path in pictures]
    elif pictures:
        names = some([path.name for path in pictures])
        tables = [path for near in dict.fromkeys((folder, findings.root)) for path in sorted(near.iterdir()) if is_table(path)]
        findings.problems.append(
            f"{folder}: pictures but no class folders ({names}); put the pictures of each class in a folder of its own"
            + (f", or name the table of their labels: {some([str(path) for path in tables])}" if tables else "")
        )


def _find_class(folder: Path, findings: Findings) -> list[Path]:
    below = listing(folder, findings.root)
    pictures = below.pictures()
    nested = [path for path in pictures if path.parent != folder]
    findings.left_out(folder, "hidden or a system's own", below.hidden)
    findings.left_out(folder, OWN, below.outputs)
    findings.left_out(folder, "links to a place counted already", below.loops)
    findings.left_out(folder, "documents", [path for path in below.files if not is_picture(path) and is_document(path)])
    if nested:
        findings.note_kind(
            "pictures in folders further down count as their class",
            f"{folder}: {number_of(len(nested), 'picture')} in folders further down {agree(len(nested), 'counts')} as this class.",
            nested,
        )
    findings.problems += [f"{path}: a folder that cannot be opened; allow reading it" for path in below.closed]
    findings.problems += [f"{path}: {MOST_LEVELS} folders inside each other; move its pictures up, or remove it" for path in below.deep]
    findings.problems += [problem for path in below.files if (problem := _file_problem(path))]
    if not pictures:
        findings.problems.append(f"{folder}: an empty class; add pictures or remove the folder")
    return pictures


def _file_problem(path: Path) -> str:
    """What is wrong with a file in a class folder, short of opening it, or ""."""
    if why := not_text(path.as_posix()):
        return f"{path}: {why}"
    if not path.is_file():
        return f"{path}: {'no ordinary file' if path.exists() else 'a link to nothing'}; remove it"
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
    places = [path.relative_to(root).parts[:-1] for path in pictures]
    home = next((parts[: number + 1] for parts in places for number, part in enumerate(parts) if one_name(part) == name), ())
    below = {parts[len(home)] for parts in places if len(parts) > len(home)}
    return f"1 class folder ({name}{f'; if its folders are the classes, name {root.joinpath(*home)} instead' if len(below) > 1 else ''})"
