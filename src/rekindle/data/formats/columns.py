"""Which column of a table holds the picture, which the label, which the split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rekindle.data.formats.names import is_picture, printable
from rekindle.errors import UserError, number_of

KNOWN = {
    "image": (
        "image",
        "img",
        "picture",
        "photo",
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image_path",
        "img_path",
        "image_name",
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target", "label_name", "species"),
    "split": ("split", "subset", "partition"),
}
# Names that are taken where none of the others stands beside them.
WEAK = {"image": ("id", "image_id", "img_id", "picture_id", "photo_id"), "label": (), "split": ()}
WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
MEANING = {"image": "pictures", "label": "labels", "split": "splits"}


@dataclass(frozen=True)
class ColumnNames:
    """Names of columns that the user gave; "" finds one.

    Attributes:
        image: Paths or bytes of pictures.
        label: Text or integers.
        split: Words such as train, validation and test.
        group: What belongs together, such as a patient or a camera; it is never found, but always named.
    """

    image: str = ""
    label: str = ""
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class ResolvedColumns:
    """Names of the columns to read; `split` and `group` may be ""."""

    image: str
    label: str
    split: str
    group: str = ""

    def choices(self) -> dict[str, str]:
        """What data.json says of them.

        Returns:
            Names of the columns by what they hold.
        """
        return {f"{role}_column": name for role, name in vars(self).items() if name}


def choose(where: str, names: Sequence[str], asked: ColumnNames, images: Sequence[str] = (), labels: Sequence[str] = ()) -> ResolvedColumns:
    """Find the columns that were not named, where there is no doubt.

    Args:
        where: The table, for messages.
        names: All its columns.
        asked: What the user named.
        images: Columns that by their type hold pictures.
        labels: Columns that by their type hold classes.

    Returns:
        The columns of picture, label, split and group; the last two may be none.

    Raises:
        UserError: If one is missing or several could be meant, with the names that there are.
    """
    image = asked.image or _likely(where, names, "image", images)
    split = asked.split or _likely(where, names, "split", ())
    label = asked.label or _likely(where, names, "label", labels)
    rest = [name for name in names if name not in (image, split, asked.group)]
    if not label and len(rest) == 1:
        label = rest[0]
    rest = [name for name in names if name not in (label, split, asked.group)]
    if not image and len(rest) == 1 and label:
        image = rest[0]
    for role, name in (("image", image), ("label", label)):
        if not name:
            raise UserError(f"{where} has no column that is surely the {MEANING[role]}; {_name_one(names, role)}.{_no_header(names)}")
    for role, name in (("image", image), ("label", label), ("split", split), ("group", asked.group)):
        if name and name not in names:
            raise UserError(f"{where} has no column {name!r}; {_name_one(names, role)}.")
    if len({image, label, split}) < 3:
        raise UserError(
            f"{where}: one column cannot be two of pictures ({image}), labels ({label}) and splits ({split or 'none'}); {_name_one(names, 'label')}."
        )
    if asked.group in (image, label, split) and asked.group:
        raise UserError(
            f"{where}: {asked.group} holds the pictures, labels or splits, so it cannot be the groups; {_name_one(names, 'group')}."
        )
    return ResolvedColumns(image, label, split, asked.group)


def _likely(where: str, names: Sequence[str], role: str, typed: Sequence[str]) -> str:
    """The one column that fits by its type, else by its name; "" if none does."""
    known = [name for name in names if name.strip().casefold() in KNOWN[role]]
    known = known or [name for name in names if name.strip().casefold() in WEAK[role]]
    for fitting in (typed, [name for name in typed if name in known] if typed else known):
        if len(fitting) == 1:
            return fitting[0]
    fitting = typed or known
    if fitting:
        raise UserError(
            f"{where} has {number_of(len(fitting), 'column')} that may hold the {MEANING[role]} ({', '.join(fitting)}); {_name_one(names, role)}."
        )
    return ""


def _name_one(names: Sequence[str], role: str) -> str:
    return printable(f"name one with --{role}-column; there are {', '.join(names)}")


def _no_header(names: Sequence[str]) -> str:
    """A hint where the first row of a CSV file is a picture's."""
    if any(is_picture(Path(name)) for name in names):
        return " Its first row seems to be no header: put one above it, such as image,label."
    if len(names) == 1:
        return " Its cells seem not to be separated: put a comma, a semicolon, a tab or a bar (|) between them."
    return ""
