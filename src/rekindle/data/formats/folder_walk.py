"""Which files of a folder are pictures, which are left out, and which are wrong; nothing is skipped in silence."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rekindle.errors import UserError, some

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jfif", ".avif"}
DOCUMENTS = {".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log"}
DOCUMENT_NAMES = {"readme", "license", "licence", "copying", "authors"}
SYSTEM = {"__macosx", "thumbs.db", "desktop.ini"}
SHOWN = 50


@dataclass
class Findings:
    """Everything wrong with a folder and everything worth saying, gathered so that it is told at once."""

    root: Path
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def left_out(self, place: Path, why: str, paths: Iterable[Path]) -> None:
        """Note files that were left out below `place`."""
        names = [path.relative_to(place).as_posix() for path in paths]
        if names:
            self.notes.append(printable(f"{place}: left out, {why}: {some(names)}."))

    def raise_if_any(self) -> None:
        """Raise a UserError that lists all problems, if there are some."""
        if not self.problems:
            return
        head = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        raise UserError(printable("\n".join([f"{self.root} has {head}; mend it and start again:", *shortened(self.problems)])))


@dataclass
class Listing:
    """What lies below a folder, each list in the order of POSIX paths.

    Attributes:
        files: Visible files.
        hidden: Hidden entries and those of operating systems; nothing below them is listed.
        loops: Linked folders that lead to a place already counted.
        closed: Folders that cannot be opened.
    """

    files: list[Path]
    hidden: list[Path]
    loops: list[Path]
    closed: list[Path]

    def pictures(self) -> list[Path]:
        """Files with a picture's ending."""
        return [path for path in self.files if is_picture(path)]


def listing(folder: Path, home: Path | None = None) -> Listing:
    """Walk a folder, following links, but never one that leads into or above `home`: its pictures would count twice.

    Args:
        folder: Where to begin.
        home: The data folder; None takes `folder`.
    """
    inside = os.path.realpath(home or folder)
    found = Listing([], [], [], [])
    seen: set[str] = set()
    for name, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: found.closed.append(Path(error.filename))):
        place, real = Path(name), os.path.realpath(name)
        if real in seen or (place != folder and place.is_symlink() and (holds(real, inside) or holds(inside, real))):
            found.loops.append(place)
            folders.clear()
            continue
        seen.add(real)
        found.hidden += [place / entry for entry in [*folders, *files] if is_hidden(entry)]
        found.files += [place / entry for entry in files if not is_hidden(entry)]
        folders[:] = sorted(entry for entry in folders if not is_hidden(entry))
    for part in (found.files, found.hidden, found.loops, found.closed):
        part.sort(key=Path.as_posix)
    return found


def find_images(items: Sequence[Path | str]) -> list[Path]:
    """Picture files named one by one, whatever their ending, or found below folders: hidden ones left out, sorted.

    Raises:
        UserError: If something does not exist, or nothing is found.
    """
    found: list[Path] = []
    for item in map(Path, items):
        if not item.exists():
            raise UserError(f"{item} does not exist; name picture files, or a folder of them.")
        found += [item] if item.is_file() else listing(item).pictures()
    if not found:
        raise UserError(f"no pictures in {', '.join(map(str, items))}; known endings: {' '.join(sorted(PICTURES))}.")
    return found


def is_hidden(name: str) -> bool:
    """Whether a name is hidden or an operating system's own."""
    return name.startswith(".") or name.casefold() in SYSTEM


def is_picture(path: Path) -> bool:
    """Whether a name ends as a picture's does."""
    return path.suffix.lower() in PICTURES


def is_document(path: Path) -> bool:
    """Whether a name is that of a text which people put beside pictures."""
    return path.suffix.lower() in DOCUMENTS or path.stem.casefold() in DOCUMENT_NAMES


def holds(outer: str, inner: str) -> bool:
    """Whether a real path is, or lies above, another."""
    return Path(inner).is_relative_to(outer)


def printable(text: str) -> str:
    """Text that any UTF-8 file takes: bytes of a name that are none stand as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def shortened(lines: Sequence[str]) -> list[str]:
    """At most 50 lines, indented, and how many more."""
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*(f"  {line}" for line in lines[:SHOWN]), *more]
