"""What rekindle itself writes, so that it is never taken for data, wherever a user lets it be written."""

import os
from collections.abc import Collection
from pathlib import Path

from rekindle.data.formats.names import is_hidden, is_picture

RUN = {"spec.yaml", "data.json"}
BEGUN = {"environment.json", ".lock"}  # A run that was killed before it had written its spec.
STUDY = "study.yaml"
CLEANED, EXPORTED, FOLDED = {"clean.html", "clean.csv"}, "export.json", "folds.json"
FIGURE_MARK = b"Software\0rekindle"
FIGURE_HEAD = 512
SEARCHED = 8  # Levels of folders; a search puts its runs two levels below --out.
MOST_LEVELS = 100  # Of folders inside each other that are walked at all: walking is recursive, and a path has a longest length.


def is_output(folder: Path, levels: int = SEARCHED) -> bool:
    """Whether a folder is an output such as a run's or a study's, or holds such folders and no picture beside them, as the folder of --out does.

    Args:
        folder: What is asked about.
        levels: How many levels of folders in it are looked into.

    Returns:
        True where nothing in the folder is data.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:
        return False
    if is_result(found):
        return True
    if any(is_picture(Path(name)) and not below and not is_figure(folder / name, found) for name, below in found.items()):
        return False
    below = [folder / name for name, is_folder in found.items() if levels and is_folder and not is_hidden(name)]
    outputs = [is_output(path, levels - 1) for path in below]
    return (any(outputs) and all(own or not _has_pictures(path) for path, own in zip(below, outputs, strict=True))) or any(
        is_figure(folder / name, found) for name in found if not below
    )


def is_result(names: Collection[str]) -> bool:
    """Whether a folder with entries of these names is that of a run, finished or not, of a study, of `data clean`, of an export, or of folds.

    Returns:
        True where rekindle wrote the folder.
    """
    found = set(names)
    return RUN <= found or BEGUN <= found or found == {".lock"} or CLEANED <= found or not found.isdisjoint({STUDY, EXPORTED, FOLDED})


def is_figure(path: Path, beside: Collection[str]) -> bool:
    """Whether a picture is a figure of rekindle: a PNG file beside its numbers that names rekindle as the software.

    Args:
        path: The file.
        beside: Names of all entries of its folder; a file without numbers beside it is not opened.

    Returns:
        True where the figure is passed over as no data.
    """
    if path.suffix != ".png" or f"{path.stem}.csv" not in beside:
        return False
    try:
        with open(path, "rb") as file:
            return FIGURE_MARK in file.read(FIGURE_HEAD)
    except OSError:
        return False


def _has_pictures(folder: Path) -> bool:
    for place, folders, files in os.walk(folder):
        if any(is_picture(Path(name)) for name in files):
            return True
        if len(Path(place).parts) - len(folder.parts) >= MOST_LEVELS:
            folders.clear()
    return False
