"""What the readers of official layouts share: finding annotation files, and saying what is wrong with them."""

from pathlib import Path
from typing import Any

from rekindle.data.tasks.task import LabeledPaths
from rekindle.errors import UserError, agree, number_of


def home_of(folder: Path, marker: str) -> Path:
    """The folder that holds `marker` (a relative path), however deep an archive has put it; the shallowest one.

    Returns:
        A folder, `folder` itself included.

    Raises:
        UserError: If there is none.
    """
    name = Path(marker)
    found = [path for path in folder.rglob(name.name) if path.parts[-len(name.parts) :] == name.parts]
    if not found:
        raise UserError(f"no {marker} in the archives; they are not the official ones, or not all of them.")
    best = min(found, key=lambda path: (len(path.parts), path.as_posix()))
    return Path(*best.parts[: -len(name.parts)])


def rows(path: Path, columns: int) -> list[list[str]]:
    """Lines of words; the last column keeps its blanks.

    Returns:
        The words of each line that is not empty.

    Raises:
        UserError: Naming the line that has too few words.
    """
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.split(maxsplit=columns - 1)
        if not words:
            continue
        if len(words) < columns:
            raise UserError(
                f"line {number} of {path.name} has {number_of(len(words), 'word')} where {columns} {agree(columns, 'is')} wanted; "
                "the archive is damaged or not the official one."
            )
        found.append([word.strip() for word in words])
    return found


def matlab(path: Path) -> dict[str, Any]:
    """The variables of a MATLAB file.

    Returns:
        Arrays and structures by name.

    Raises:
        UserError: If it is none.
    """
    from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(path, squeeze_me=True)
    except Exception as error:  # noqa: BLE001 (scipy raises nearly anything on a damaged file)
        raise UserError(f"{path.name} is no MATLAB file that can be read ({error}).") from None
    return found


def label_of(number: int, classes: list[str], where: str) -> int:
    """A label that counts from 1, as one that counts from 0.

    Returns:
        A number from 0 to classes - 1.

    Raises:
        UserError: If there is no such class.
    """
    if not 1 <= number <= len(classes):
        raise UserError(f"{where} names class {number}, but there are {len(classes)}; the archive is damaged or not the official one.")
    return number - 1


def by_class(folder: Path, names: list[str], classes: list[str]) -> LabeledPaths:
    """Pictures named "CLASS/picture.jpg" below `folder`.

    Returns:
        (path, label) of each picture.
    """
    labels = {name: label for label, name in enumerate(classes)}
    found = []
    for name in names:
        label = labels.get(name.rsplit("/", 1)[0])
        if label is None:
            raise UserError(
                f"a split lists {name}, whose folder is none of the {number_of(len(classes), 'class')}; the archive is damaged or not the official one."
            )
        found.append((folder / name, label))
    return found
