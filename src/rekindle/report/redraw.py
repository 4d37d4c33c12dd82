"""A finished run's page drawn again from its folder, as after an upgrade, and with heat maps where they are wanted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rekindle import data as data_room
from rekindle.data import Dataset
from rekindle.errors import UserError
from rekindle.method import noop
from rekindle.records import read_spec
from rekindle.report.cards import mistake_cards, read_cards, write_cards
from rekindle.report.heat_cards import heat_cards
from rekindle.report.results import final_split
from rekindle.report.run_page import write_report
from rekindle.report.run_pictures import HEAT_MAPS, MISTAKES, Finished, draw_figures
from rekindle.run import Run


def redraw(folder: str | Path, *, explain: bool = False, note: Callable[[str], object] = noop) -> Path:
    """Draw the figures of a finished run again and write its page.

    Args:
        folder: The run's.
        explain: Add heat maps: where the network looked. The run's pictures must be there.
        note: Told what could not be drawn.

    Returns:
        The page's path.

    Raises:
        UserError: If the run has not finished, or heat maps cannot be made.
    """
    run = Run(Path(folder))
    dataset = _dataset(run, note, needed=explain)
    finished = Finished(run.folder, run.history, run.result, dataset.find if dataset else _nowhere)
    draw_figures(finished)
    split = final_split(run.result)
    if dataset is not None:
        write_cards(run.folder / MISTAKES, mistake_cards(run.folder, split, dataset.find))
    if explain and dataset is not None:
        write_cards(run.folder / HEAT_MAPS, heat_cards(run, split, dataset.find))
    return write_report(run.folder)


def _dataset(run: Run, note: Callable[[str], object], needed: bool) -> Dataset | None:
    """The run's data; None, and a note, where they cannot be read and need not."""
    spec = read_spec(run.folder)
    try:
        return data_room.open_data(spec.data, **spec.data_options())
    except UserError as error:
        if needed:
            raise UserError(f"heat maps need the run's pictures, and they cannot be read: {error}") from None
        kept = len(read_cards(run.folder / MISTAKES))
        note(f"the run's pictures cannot be read, so the {kept} on its page stay as they are: {error}")
        return None


def _nowhere(name: str) -> Any:
    raise KeyError(name)
