"""A picture is a file, or a cell of a table that holds the file's bytes."""

import errno
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

MAX_BYTES = 2**30


class Column(Protocol):
    """A table's column of encoded pictures; many threads may read it, and it can be pickled."""

    def read(self, row: int) -> bytes:
        """The bytes in a row, 0-based; OSError where there are none.

        Returns:
            The encoded bytes of one picture.
        """


@dataclass(frozen=True)
class TableImage:
    """Encoded bytes of one picture inside a table; as text it is its name.

    Attributes:
        name: What messages and files call it, such as "train.parquet[17]"; no two of a data set are equal.
        column: Where it lies.
        row: Its row there, 0-based.
    """

    name: str
    column: Column = field(compare=False, repr=False)
    row: int = field(compare=False)

    def read(self) -> bytes:
        """The encoded bytes; OSError where there are none.

        Returns:
            The encoded bytes of the picture.
        """
        return self.column.read(self.row)

    @property
    def place(self) -> tuple[str, int]:
        """Its table and its row, to sort by."""
        return self.name.rpartition("[")[0], self.row

    def __str__(self) -> str:
        return self.name


Picture = Path | TableImage


def read_file(path: Path) -> bytes:
    """A picture file's bytes.

    Returns:
        The file's bytes, undecoded.

    Raises:
        OSError: If it cannot be opened, is no ordinary file (a named pipe waits for ever, a device never ends) or is too large for a picture.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a folder" if stat.S_ISDIR(found.st_mode) else "no ordinary file but a pipe, a device or the like")
    if found.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{found.st_size / MAX_BYTES:.1f} GiB, too large for a picture")
    return path.read_bytes()
