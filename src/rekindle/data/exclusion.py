"""Pictures that a CSV file names so that no run trains on them, as `rekindle data clean` writes it."""

import csv
import io
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rekindle.data.dataset import name_in
from rekindle.data.formats.images import Picture
from rekindle.data.formats.names import one_name
from rekindle.errors import UserError, agree, number_of, some
from rekindle.files import plain_text

COLUMN = "path"
SEPARATORS = ",;\t"  # Spreadsheets write each of them, by country.


@dataclass(frozen=True)
class Exclusion:
    """What neither trains nor validates. Pictures of a test split stay in it: a test without its hard pictures is another test.

    Attributes:
        file: That names the pictures; "" where nothing is left out.
        pictures: Those of the data.
        unknown: Names that no picture has.
    """

    file: str = ""
    pictures: frozenset[Picture] = frozenset()
    unknown: tuple[str, ...] = ()

    def kept(self, pictures: list[Picture]) -> list[Picture]:
        """Those that are not left out.

        Returns:
            The other pictures, in their order.
        """
        return [picture for picture in pictures if picture not in self.pictures] if self.pictures else pictures

    def notes(self, tested: Iterable[Picture]) -> list[str]:
        """What a run says of it.

        Args:
            tested: Pictures of the test split.

        Returns:
            Sentences; none where nothing was left out.
        """
        if not self.file:
            return []
        staying = len(self.pictures.intersection(tested))
        said = [f"--exclude {self.file}: {number_of(len(self.pictures) - staying, 'picture', 'is')} left out of training and validation."]
        if staying:
            said.append(
                f"--exclude {self.file}: {staying} of its pictures {agree(staying, 'is')} in the test split and {agree(staying, 'stays')} there, since a test without its hard "
                "pictures is another test; mend their labels."
            )
        if self.unknown:
            said.append(
                f"--exclude {self.file}: {len(self.unknown)} of its names {agree(len(self.unknown), 'belongs')} to no picture of these data: {some(self.unknown)}."
            )
        return said


NOTHING = Exclusion()


def read_exclusion(file: str | None, root: Path, pictures: Iterable[Picture]) -> Exclusion:
    """Find the pictures that a file names.

    Args:
        file: A CSV file with a column `path`: names as `rekindle data clean` writes them, or whole paths; None leaves nothing out.
        root: The folder that names start in.
        pictures: All of the data.

    Returns:
        The pictures that are left out, and the names that no picture has.

    Raises:
        UserError: If it cannot be read, has no such column, or names no picture of the data at all.
    """
    if file is None:
        return NOTHING
    asked = [one_name(name) for name in _names(Path(file))]
    known = {}
    for picture in pictures:
        known[one_name(name_in(root, picture))] = picture
        if isinstance(picture, Path):
            known[one_name(os.path.abspath(picture))] = picture
    found = {name: known.get(name) or known.get(posixpath.normpath(name)) for name in asked}
    unknown = tuple(name for name, picture in found.items() if picture is None)
    if found and len(unknown) == len(found):
        raise UserError(
            f"--exclude {file} names {number_of(len(found), 'picture')} ({some(unknown, 3)}), and none is in {root}; write paths from {root}, or whole ones."
        )
    return Exclusion(file, frozenset(picture for picture in found.values() if picture is not None), unknown)


def _names(file: Path) -> list[str]:
    """The texts of the column `path`."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--exclude {file} is not UTF-8 ({error.reason} at byte {error.start}); save it again as UTF-8.") from None
    except OSError as error:
        raise UserError(f"--exclude {file} cannot be read ({error.strerror}); name the clean.csv of rekindle data clean.") from None
    header = text.partition("\n")[0].strip()
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=header.count))
    if COLUMN not in (rows.fieldnames or []):
        raise UserError(
            f"--exclude {file} has no column {COLUMN} in its first line ({header[:80] or 'it is empty'}); name the clean.csv of rekindle "
            f"data clean, or write {COLUMN} above a path in each line."
        )
    try:
        return [plain_text(row[COLUMN]) for row in rows if row[COLUMN]]
    except csv.Error as error:
        raise UserError(f"--exclude {file} row {rows.line_num} cannot be read as CSV ({error}).") from None
