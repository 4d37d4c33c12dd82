"""The pictures that an export is checked on: the run's own, or others of the same classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rekindle import data as data_room
from rekindle.data import Picture
from rekindle.data.formats.columns import ColumnNames
from rekindle.errors import UserError
from rekindle.records import read_spec
from rekindle.run import Run, labeled

CHECKED, MEASURED, CALIBRATION = 100, 500, 100


@dataclass(frozen=True)
class OwnPictures:
    """Pictures for the checks of an export.

    Attributes:
        pictures: At most `MEASURED` labelled ones, of the test split where there is one, else of validation, else of training.
        labels: Their classes.
        calibration: At most `CALIBRATION` training pictures, for the ranges of int8; others where only those were given.
    """

    pictures: Sequence[Picture]
    labels: Tensor
    calibration: Sequence[Picture]

    @property
    def checked(self) -> Sequence[Picture]:
        """Those on which answers are compared one by one."""
        return self.pictures[:CHECKED]


def own_pictures(run: Run, data: str | None) -> OwnPictures:
    """Choose them, the same ones every time.

    Args:
        run: A finished run.
        data: Labelled pictures in place of the run's own.

    Returns:
        Those to check on, those to measure on with their labels, and those to calibrate int8 by.

    Raises:
        UserError: If there are none to be read.
    """
    spec = read_spec(run.folder)
    if data is not None:
        pictures, labels = labeled(data, run.model[1]["classes"], ColumnNames(spec.image_column or "", spec.label_column or ""))
        if not pictures:
            raise UserError(f"{data} holds no pictures to check the export on; name a folder of class folders.")
        rows = data_room.order(len(pictures), 0, 0)[:MEASURED]
        chosen = [pictures[row] for row in rows]
        return OwnPictures(chosen, labels[rows], chosen[:CALIBRATION])
    try:
        dataset = data_room.open_data(spec.data, **spec.data_options())
    except UserError as error:
        raise UserError(
            f"an export is checked on the run's own pictures, and they cannot be read: {error} Or give others with --data."
        ) from None
    name = next(name for name in ("test", "val", "train") if name in dataset.splits)
    train, split = dataset.splits["train"], dataset.splits[name]
    rows, own = data_room.order(len(split.paths), 0, 0)[:MEASURED], data_room.order(len(train.paths), 0, 0)[:CALIBRATION]
    return OwnPictures([split.paths[row] for row in rows], split.labels[rows], [train.paths[row] for row in own])
