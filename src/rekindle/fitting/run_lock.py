"""One command at a time in a run folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rekindle.errors import Busy, UserError
from rekindle.files import remove_temporaries
from rekindle.locks import locked, remove_if_unused

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOCK = ".lock"
BUSY = "another command is training {folder} at this moment; wait for it, or choose another --out."


@contextmanager
def alone(folder: Path, fabric: "Fabric", note: Callable[[str], None]) -> Iterator[None]:
    """Let one command at a time work in a run folder. Whoever is refused has changed nothing there.

    Raises:
        Busy: If another command is at it; on every rank.
    """
    with ExitStack() as held:
        free = not fabric.is_global_zero or held.enter_context(run_lock(folder, note))
        if not (fabric.broadcast(free) if fabric.world_size > 1 else free):
            raise Busy(BUSY.format(folder=folder))
        yield


@contextmanager
def run_lock(folder: Path, note: Callable[[str], None]) -> Iterator[bool]:
    """Hold a run folder's lock, if it is free. A run that failed before it began leaves no empty folder behind."""
    made = not folder.parent.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError):  # Another command removes it at this moment.
        pass
    except OSError as error:
        raise UserError(
            f"the run's folder {folder} cannot be made ({error.strerror}); name a folder that may be written with --out."
        ) from None
    with locked(folder / LOCK, note=note) as mine:
        try:
            if mine:
                for place in (folder, folder / "checkpoints"):
                    remove_temporaries(place)
            yield mine
        finally:
            if mine:
                remove_if_unused(folder, LOCK)
                if made:
                    with suppress(OSError):  # It holds the runs of other commands.
                        folder.parent.rmdir()
