"""A picture is a file, or a cell of a table that holds the file's bytes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Column(Protocol):
    """A table's column of encoded pictures; many threads may read it, and it can be pickled."""

    def read(self, row: int) -> bytes:
        """The bytes in a row, 0-based; OSError where there are none."""


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
        """The encoded bytes; OSError where there are none."""
        return self.column.read(self.row)

    @property
    def place(self) -> tuple[str, int]:
        """Its table and its row, to sort by."""
        return self.name.rpartition("[")[0], self.row

    def __str__(self) -> str:
        return self.name


Picture = Path | TableImage
