"""Names of run folders: those that are made, and those that a user gives."""

from pathlib import Path

from rekindle.data.formats.names import is_hidden
from rekindle.errors import UserError, shown
from rekindle.records import LATEST, began_as

SLUG_BYTES = 60  # Of each of the three words in a run folder's name; file systems take 255 bytes, some of them 143.


def slug(text: str) -> str:
    """Letters and digits of a text, cut to as many bytes as leave room for the other parts of a name: file systems count bytes.

    Returns:
        Text for a part of a folder's name.
    """
    kept = "".join(c if c.isalnum() or c in "_.=" else "-" for c in text).strip("-")
    return kept.encode("utf-8", "ignore")[:SLUG_BYTES].decode("utf-8", "ignore")


def check_name(name: str) -> None:
    """Refuse a name that is no folder's everywhere, or that a shell, a page or `latest` would take for something else.

    Raises:
        UserError: Saying what it may be.
    """
    if not name or slug(name) != name or name.startswith(".") or name == LATEST:
        raise UserError(
            f"--name takes letters, digits and - _ . = (at most {SLUG_BYTES} bytes, no dot or dash in front, and not {LATEST!r}), found {shown(name)}."
        )


def check_free(folder: Path, run_id: str) -> None:
    """Refuse a named folder that holds something else than this run.

    Raises:
        UserError: If it holds another run, or things that no run wrote.
    """
    if (folder / "environment.json").is_file():  # The first file that a run writes.
        if began_as(folder) != run_id:
            raise UserError(f"{folder} holds a run with other settings or data; give another --name, or go on with it: --resume {folder}.")
    else:
        check_empty(folder, "a run")


def check_empty(folder: Path, wanted: str) -> None:
    """Refuse a named folder that holds anything but hidden files, where it is to hold what is `wanted`.

    Raises:
        UserError: If it does, or is no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(not is_hidden(entry.name) for entry in folder.iterdir())):
        raise UserError(f"{folder} holds something else than {wanted}; give another --name.")
