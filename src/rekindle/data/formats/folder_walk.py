"""Which files of a folder are pictures, which are left out, and which are wrong; nothing is skipped in silence."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rekindle.data.formats.names import PICTURES, is_document, is_hidden, is_picture, printable
from rekindle.data.formats.outputs import MOST_LEVELS, is_figure, is_output
from rekindle.errors import UserError, number_of, some

SHOWN = 50
NOTES_OF_A_KIND = 5
EXAMPLES = 3


@dataclass
class Findings:
    """Everything wrong with a folder and everything worth saying, gathered so that it is told at once.

    Attributes:
        root: The folder, or the table.
        problems: Why a run is refused.
        notes: What is worth saying.
    """

    root: Path
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _kinds: dict[str, list[tuple[str, list[Path]]]] = field(default_factory=dict, repr=False)

    def left_out(self, place: Path, why: str, paths: Iterable[Path]) -> None:
        """Note files that were left out below `place`."""
        found = list(paths)
        if found:
            names = [path.relative_to(place).as_posix() for path in found]
            self.note_kind(f"left out, {why}", f"{place}: left out, {why}: {some(names)}.", found)

    def note_kind(self, kind: str, text: str, paths: list[Path]) -> None:
        """Add a note of a kind that may come for every folder; `merge_notes` makes one of many."""
        self.notes.append(printable(text))
        self._kinds.setdefault(kind, []).append((self.notes[-1], paths))

    def merge_notes(self) -> None:
        """Replace the notes of a kind by one with counts and examples, where there are more than five."""
        for kind, told in self._kinds.items():
            if len(told) > NOTES_OF_A_KIND:
                paths = [path for _, found in told for path in found]
                examples = some([os.path.relpath(found[0], self.root) for _, found in told][:EXAMPLES])
                gone = {text for text, _ in told}
                place = next(number for number, text in enumerate(self.notes) if text in gone)
                self.notes[:] = [text for text in self.notes if text not in gone]
                self.notes.insert(
                    place, printable(f"{self.root}: {kind}: {len(paths)} in {number_of(len(told), 'folder')}, such as {examples}.")
                )
        self._kinds.clear()

    def raise_if_any(self) -> None:
        """Raise a UserError that lists all problems, if there are some."""
        if not self.problems:
            return
        head = number_of(len(self.problems), "problem")
        raise UserError(printable("\n".join([f"{self.root} has {head}; mend it and start again:", *shortened(self.problems)])))


@dataclass
class Listing:
    """What lies below a folder, each list in the order of POSIX paths.

    Attributes:
        files: Visible files.
        hidden: Hidden entries and those of operating systems; nothing below them is listed.
        loops: Linked folders that lead to a place already counted.
        closed: Folders that cannot be opened.
        deep: Folders so many levels down that nobody has put them there on purpose; nothing in them is listed.
        outputs: What rekindle itself wrote; nothing below its folders is listed.
    """

    files: list[Path]
    hidden: list[Path]
    loops: list[Path]
    closed: list[Path]
    deep: list[Path]
    outputs: list[Path]

    def pictures(self) -> list[Path]:
        """Files with a picture's ending.

        Returns:
            Paths, sorted.
        """
        return [path for path in self.files if is_picture(path)]


def listing(folder: Path, home: Path | None = None) -> Listing:
    """Walk a folder, following links, but never one that leads into or above `home`: its pictures would count twice.

    Args:
        folder: Where to begin.
        home: The data folder; None takes `folder`.

    Returns:
        Every file and folder below it, hidden ones told apart.
    """
    inside = os.path.realpath(home or folder)
    found = Listing([], [], [], [], [], [])
    seen: set[str] = set()
    for name, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: found.closed.append(Path(error.filename))):
        place, real = Path(name), os.path.realpath(name)
        if real in seen or (place != folder and place.is_symlink() and (holds(real, inside) or holds(inside, real))):
            found.loops.append(place)
            folders.clear()
            continue
        seen.add(real)
        if len(place.parts) - len(folder.parts) >= MOST_LEVELS:
            found.deep.append(place)
            folders.clear()
            continue
        found.hidden += [place / entry for entry in [*folders, *files] if is_hidden(entry)]
        own = [entry for entry in files if is_figure(place / entry, files)]
        own += [entry for entry in folders if not is_hidden(entry) and is_output(place / entry)]
        found.outputs += [place / entry for entry in own]
        found.files += [place / entry for entry in files if not is_hidden(entry) and entry not in own]
        folders[:] = sorted(entry for entry in folders if not is_hidden(entry) and entry not in own)
    for part in (found.files, found.hidden, found.loops, found.closed, found.deep, found.outputs):
        part.sort(key=Path.as_posix)
    return found


def find_images(items: Sequence[Path | str]) -> list[Path]:
    """Picture files named one by one, whatever their ending, or found below folders: hidden ones left out, sorted.

    Returns:
        Paths in the order of the items, sorted within a folder.

    Raises:
        UserError: If something does not exist, or nothing is found.
    """
    found: list[Path] = []
    for item in _existing(items):
        found += listing(item).pictures() if item.is_dir() else [item]
    if not found:
        raise UserError(f"no pictures in {', '.join(map(str, items))}; known endings: {' '.join(sorted(PICTURES))}.")
    return found


@dataclass
class NewFiles:
    """Files to classify, and what was passed over.

    Attributes:
        paths: Named one by one, or found below folders: all that may be pictures, whatever their ending, sorted within each folder.
        passed_over: {reason: files and folders}.
    """

    paths: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)

    def told(self) -> list[str]:
        """A sentence for each reason, with a count and examples.

        Returns:
            Sentences; none where every file is a picture.
        """
        return [
            printable(f"passed over, {why}: {len(paths)}, such as {some([str(path) for path in paths], EXAMPLES)}.")
            for why, paths in self.passed_over.items()
        ]


def find_new(items: Sequence[Path | str]) -> NewFiles:
    """What to classify: each file of a folder is either among the paths or passed over for a reason.

    Returns:
        The paths to classify, and what was passed over.

    Raises:
        UserError: If something does not exist, or nothing is found.
    """
    found = NewFiles()
    for item in _existing(items):
        if not item.is_dir():
            found.paths.append(item)
            continue
        below = listing(item)
        documents = [path for path in below.files if not is_picture(path) and is_document(path)]
        found.paths += sorted({*below.files} - {*documents}, key=Path.as_posix)
        for why, paths in (
            ("documents", documents),
            ("hidden or a system's own", below.hidden),
            ("written by rekindle", below.outputs),
            ("links to a place counted already", below.loops),
            ("folders that cannot be opened", below.closed),
            (f"folders {MOST_LEVELS} levels down", below.deep),
        ):
            if paths:
                found.passed_over.setdefault(why, []).extend(paths)
    if not found.paths:
        more = "".join(f" {sentence[0].upper()}{sentence[1:]}" for sentence in found.told())
        raise UserError(f"no pictures in {', '.join(map(str, items))}; known endings: {' '.join(sorted(PICTURES))}.{more}")
    return found


def _existing(items: Sequence[Path | str]) -> Iterator[Path]:
    for item in map(Path, items):
        if not item.exists() and not item.is_symlink():
            raise UserError(f"{item} does not exist; name picture files, or a folder of them.")
        yield item


def holds(outer: str, inner: str) -> bool:
    """Whether a real path is, or lies above, another.

    Returns:
        True where `inner` is `outer` or lies below it.
    """
    return Path(inner).is_relative_to(outer)


def shortened(lines: Sequence[str]) -> list[str]:
    """At most 50 lines, indented, and how many more.

    Returns:
        The lines to print.
    """
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*(f"  {line}" for line in lines[:SHOWN]), *more]
