"""The picture files that a table's cells name, by path or by a bare id."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rekindle.data.formats.folder_walk import EXAMPLES, Findings, listing
from rekindle.data.formats.images import Picture
from rekindle.data.formats.names import one_name, printable
from rekindle.errors import agree, number_of, some

Pattern = tuple[str, str]


def find_files(root: Path, where: Sequence[str], cells: Sequence[Any], findings: Findings) -> list[Picture | None]:
    """The picture files that cells name, from the table's folder; None where there is a problem.

    Cells that all name pictures by ids, such as 17 for train/17.jpg, are read so, where one folder and one ending fit them all.

    Args:
        root: The table's folder.
        where: What messages call each row.
        cells: Paths or ids.
        findings: Gets every problem.

    Returns:
        A picture, or None, for each cell, in order.
    """
    texts = ["" if cell is None else _whole(cell) for cell in cells]
    base = os.path.abspath(root)
    files = [_file(base, text) for text in texts]
    missing = [number for number, file in enumerate(files) if texts[number] and not os.path.exists(file)]
    elsewhere = _Elsewhere(root, [texts[number] for number in missing])
    if pattern := elsewhere.pattern(len(texts)):
        texts = ["/".join(part for part in (pattern[0], text + pattern[1]) if part) if text else "" for text in texts]
        files = [_file(base, text) for text in texts]
        findings.notes.append(
            printable(
                f"{findings.root}: {number_of(len(texts), 'row', 'names')} pictures by id; they are read as {Path(pattern[0], 'ID' + pattern[1]).as_posix()}."
            )
        )
    found: list[Picture | None] = []
    outside = 0
    for place, text, file in zip(where, texts, files, strict=True):
        inside = file.startswith(base + os.sep)
        problem = _problem(text, file, inside, root) or ""
        if problem.startswith("there is no file"):
            problem += elsewhere.hint(text)
        if problem:
            findings.problems.append(printable(f"{place}: {problem}"))
        outside += not problem and not inside
        found.append(None if problem else root / os.path.relpath(file, base) if inside else Path(file))
    if outside:
        findings.notes.append(
            f"{findings.root}: {number_of(outside, 'picture', 'lies')} outside {root}, named by absolute paths; the table cannot move without {agree(outside, 'it')}."
        )
    return found


def _whole(cell: Any) -> str:
    """A cell's text; ids that a missing one has made floats are whole numbers again."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _file(base: str, text: str) -> str:
    """The path that a cell names: as it stands, with the separators of Windows, or with accents stored in another way."""
    names = [text, text.replace("\\", "/")]
    files = [os.path.normpath(os.path.join(base, name)) for name in names]
    if present := next((file for file in files if os.path.exists(file)), None):
        return present
    return next((other for file in files if (other := _other_form(base, file))), files[0])


def _other_form(base: str, file: str) -> str:
    """A file whose name differs in its Unicode form alone, or ""."""
    if file.isascii() or not file.startswith(base + os.sep):
        return ""
    place = base
    for part in os.path.relpath(file, base).split(os.sep):
        try:
            place = os.path.join(place, next(name for name in os.listdir(place) if one_name(name) == one_name(part)))
        except (OSError, StopIteration):
            return ""
    return place


class _Elsewhere:
    """Where pictures lie that a table names by less than their path.

    Args:
        root: The table's folder.
        texts: Cells for which there is no file.
    """

    def __init__(self, root: Path, texts: Sequence[str]) -> None:
        self._texts = texts
        self._by_name: dict[str, list[tuple[Pattern, str]]] = defaultdict(list)
        if not texts:
            return
        for path in listing(root).pictures():
            relative = path.relative_to(root)
            # A cell may leave out folders from the left, and the ending.
            for number in range(len(relative.parts)):
                folder, rest = "/".join(relative.parts[:number]), "/".join(relative.parts[number:])
                for name, ending in ((rest, ""), (rest.removesuffix(path.suffix), path.suffix)):
                    if folder or ending:
                        self._by_name[one_name(name)].append(((folder, ending), relative.as_posix()))

    def pattern(self, rows: int) -> Pattern | None:
        """The one folder and ending with which the rows, but for a few without a picture, name one; None if there is none, or several."""
        known = [found for text in self._texts if (found := self._by_name.get(one_name(text)))]
        if len(self._texts) < rows or 2 * len(known) <= rows:
            return None
        fitting = {pattern for pattern, _ in known[0]}
        for found in known:
            fitting &= {pattern for pattern, _ in found}
        return fitting.pop() if len(fitting) == 1 else None

    def hint(self, text: str) -> str:
        """Which pictures may be meant."""
        there = [name for _, name in self._by_name.get(one_name(text), [])]
        if not there:
            return ""
        return f", but there {agree(len(there), 'lies')} {some(there, EXAMPLES)}; write paths from the table's folder"


def _problem(text: str, file: str, inside: bool, root: Path) -> str:
    if not text:
        return "no picture; fill it in or remove the row"
    if not inside and not os.path.isabs(text):
        return f"{text} leads out of {root}; write an absolute path if that is meant"
    if os.path.isdir(file):
        return f"{text} is a folder; name a picture file"
    if not os.path.exists(file):
        return f"there is no file {text}"
    if not os.path.isfile(file):
        return f"{text} is no ordinary file; name a picture file"
    return ""
