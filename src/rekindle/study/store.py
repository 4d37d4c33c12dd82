"""A study's folder: its grid, a small record for each cell, leases, and the run folders. Files are the truth; any number of
commands may work in one folder at once.

    study.yaml          the grid as it is run, and the threads of each run
    cells/KEY.json      what became of a cell: running, done (with its run folder) or failed (with the message)
    cells/KEY.lock      held while somebody works on the cell; the system lets go of it when its owner dies
    cells/KEY.log       what the run said
    runs/               run folders
    report/             what `rekindle study report` wrote
"""

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len
from typing_extensions import TypedDict

from rekindle.errors import Later, Unreadable, UserError, number_of
from rekindle.files import remove_temporaries
from rekindle.locks import locked
from rekindle.records import Amount, Number, Whole, read_result
from rekindle.spec import RunSpec
from rekindle.stored import SURPRISES, FileFormat
from rekindle.study.grid import Cell, Grid, Group
from rekindle.study.grid_file import from_dict

CRASHES = 2
SETTLED = ("done", "failed")


class StudyFile(TypedDict):
    """study.yaml."""

    threads: Annotated[int, Interval(ge=1, le=1 << 12)]
    grid: dict[str, Any]


class Progress(TypedDict):
    """How far a cell's run is."""

    what: str
    share: Number
    left: Amount | None


class Record(TypedDict, total=False):
    """cells/KEY.json: what became of a cell."""

    state: Literal["waiting", "running", "stopped", "failed", "done"]
    run: Annotated[str, Len(1, 1 << 12)] | None
    error: str | None
    progress: Progress | None
    crashes: Whole
    pid: int
    inputs: str
    spec: dict[str, Any]
    result: list[int]


STUDY = FileFormat(2, StudyFile, "remove it, and write it again with rekindle study run GRID.yaml --out {folder}")
CELL = FileFormat(2, Record, "the cell counts as not done, and rekindle study run does it again")


@dataclass
class Study:
    """A study's folder, opened.

    Args:
        folder: Where it lies.
        grid: What is run in it.
        threads: Of each run; one number for a whole study, so that all runs can be compared bit for bit.
        faults: A sentence for each file of a cell that was found damaged; such a cell counts as not done.
    """

    folder: Path
    grid: Grid
    threads: int
    faults: dict[Path, str] = field(default_factory=dict, repr=False)
    _records: dict[str, tuple[list[int], dict[str, Any]]] = field(default_factory=dict, repr=False)
    _whole: dict[Path, list[int]] = field(default_factory=dict, repr=False)
    _prints: dict[str, str] = field(default_factory=dict, repr=False)
    _settled: set[str] = field(default_factory=set, repr=False)
    _chosen: dict[tuple[Any, str], str] = field(default_factory=dict, repr=False)
    _grown: dict[tuple[Any, str], tuple[Group, list[dict[str, Any]]]] = field(default_factory=dict, repr=False)

    @classmethod
    def create(cls, folder: Path | str, grid: Grid, threads: int | None = None) -> "Study":
        """Make the folder, or take up the one that is there; what is done in it stays done.

        Args:
            folder: Where to.
            grid: Written into the folder; a changed one replaces the old.
            threads: None takes the folder's own number, or one thread for a new folder.

        Returns:
            The study; its grid is that of the file.

        Raises:
            UserError: If the folder holds a study of another name, or lies on a file system without locks.
            Later: If a later rekindle worked in the folder.
        """
        folder = Path(folder)
        path = folder / "study.yaml"
        with locked(folder / ".lock", waiting="", required=True):
            before: dict[str, Any] = _read(path)[0] if path.exists() else {}
            _refuse_later(folder)
            if before and before["grid"]["name"] != grid.name:
                raise UserError(f"{folder} holds the study {before['grid']['name']}, not {grid.name}; choose another --out.")
            grid = from_dict(with_defaults(grid.raw, _defaults_of(before)))
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            remove_temporaries(folder)
            now: dict[str, Any] = {"threads": threads or before.get("threads", 1), "grid": grid.raw}
            if now != before:
                STUDY.write_yaml(path, now)
        return cls(folder, grid, now["threads"])

    @classmethod
    def open(cls, folder: Path | str) -> "Study":
        """Open a folder that `create` made.

        Returns:
            The study, as it stands in the folder.

        Raises:
            UserError: If it is none.
        """
        path = Path(folder) / "study.yaml"
        if not path.exists():
            raise UserError(f"{folder} is no study's folder (it has no study.yaml); name one that rekindle study run made.")
        found, grid = _read(path)
        return cls(Path(folder), grid, found["threads"])

    @property
    def runs(self) -> Path:
        """Where the run folders are."""
        return self.folder / "runs"

    @property
    def groups(self) -> list[Group]:
        """Those of the grid, with all candidates that are known now."""
        return [self.grown(group) for group in self.grid.groups]

    def grown(self, group: Group) -> Group:
        """A group with the candidates that its search has proposed so far; as it is where all are given.

        The next candidate is proposed when every run that chooses among those before is settled.
        """
        if group.search is None:
            return group
        place = group.setting, group.method
        found, tried = self._grown.get(place, (group, [group.search.start(0)]))
        search = found.search or group.search
        while len(tried) < search.trials and (scores := self._scores(found)) is not None:
            accuracies = [None if None in mine else sum(mine) / len(mine) for mine in scores.values()]
            values = search.propose(list(zip(tried, accuracies, strict=True)))
            if values is None:
                found = replace(found, search=replace(search, trials=len(tried)))
                break
            text, settings = search.settings(values)
            found, tried = replace(found, candidates={**found.candidates, text: settings}), [*tried, values]
        self._grown[place] = found, tried
        return found

    def cells(self) -> list[Cell]:
        """All cells that are known now, each once: block after block, in a block those of the first seed first.

        So a study cut short has whole blocks and whole pairs. Final runs of a method with a grid are known when its selection is finished.

        Returns:
            Cells in the order in which they are to be run.
        """
        groups = self.groups
        cells = [cell for group in groups for cell in (*group.selection_cells, *self.final_cells(group))]
        found: dict[str, Cell] = {}
        for cell in sorted(cells, key=lambda cell: cell.turn):
            found.setdefault(cell.key, cell)
        return list(found.values())

    def final_cells(self, group: Group) -> list[Cell]:
        """The final runs of a group that are known now; of all candidates where the grid asks for test_selected.

        Returns:
            Cells, none while a selection is open.
        """
        group = self.grown(group)
        names = list(group.candidates) if group.selection.test_selected else [self.chosen(group)]
        return [cell for name in names if name is not None for cell in group.final_cells[name]]

    def unknown_cells(self) -> int:
        """How many runs wait for a selection: final ones, and those of candidates that are still to be proposed.

        Returns:
            A count, 0 or more.
        """
        waiting = [group for group in self.groups if self.selecting(group)]
        final = sum(len(group.seeds) for group in waiting if not group.selection.test_selected)
        return final + sum((group.budget - len(group.candidates)) * len(group.selection.seeds) for group in waiting)

    def selecting(self, group: Group) -> bool:
        """Whether runs that choose are still to be done.

        Returns:
            True while the choice is open and can still come out.
        """
        return self.chosen(group) is None and any(self.state(cell) not in SETTLED for cell in self.grown(group).selection_cells)

    def chosen(self, group: Group) -> str | None:
        """The candidate with the best mean validation accuracy, the first of equals; None while that is open.

        A candidate with a failed run is out; where every candidate has one, None stays.

        Returns:
            The name of a candidate, or None.
        """
        if not group.searches:
            return next(iter(group.candidates))
        place = group.setting, group.method
        if place not in self._chosen and (scores := self.selection_scores(group)) is not None:
            whole = {name: sum(values) / len(values) for name, values in scores.items() if None not in values}
            if whole:
                self._chosen[place] = max(whole, key=lambda name: whole[name])
        return self._chosen.get(place)

    def selection_scores(self, group: Group) -> dict[str, list[Any]] | None:
        """Validation accuracies of each candidate, None for a failed run; None while a run is still to be done.

        Returns:
            Accuracies from 0 to 1 by candidate, one a seed; or None.
        """
        return self._scores(self.grown(group))

    def _scores(self, group: Group) -> dict[str, list[Any]] | None:
        scores: dict[str, list[Any]] = {name: [] for name in group.candidates}
        for cell in group.selection_cells:
            state = self.state(cell)
            if state not in SETTLED:
                return None
            scores[cell.candidate].append(self.result(cell)["val"]["accuracy"] if state == "done" else None)
        return scores

    def state(self, cell: Cell) -> str:
        """ "done", "failed", "running", "stopped" (begun, and nobody is at it), or "waiting".

        Returns:
            One of the five words.
        """
        record = self.record(cell.key)
        state = record.get("state", "waiting")
        if state == "done" and not (self._has_result(record) and same_spec(record.get("spec", {}), cell.spec)):
            return "waiting"
        if state == "running" and not self.is_leased(cell.key):
            # Somebody may have finished it between the two looks.
            state = self.record(cell.key).get("state", "waiting").replace("running", "stopped")
        return str(state)

    def settled(self, cell: Cell) -> bool:
        """Whether a cell is done, for the data and weights as they are now, or failed.

        Returns:
            True where nothing is left to do for it.
        """
        if cell.key in self._settled:
            return True
        state = self.state(cell)
        if state == "failed" or (state == "done" and self.record(cell.key).get("inputs") == self._inputs(cell)):
            self._settled.add(cell.key)
            return True
        return False

    def record(self, key: str) -> dict[str, Any]:
        """What became of a cell; empty before it is begun, and where the file is damaged. A file that did not change is read once.

        Returns:
            The checked contents of its file.
        """
        path = self._record_path(key)
        self.faults.pop(path, None)
        try:
            stamp = _stamp(path)
            if key not in self._records or self._records[key][0] != stamp:
                self._records[key] = stamp, {**CELL.read(path)}
            return self._records[key][1].copy()
        except Unreadable as error:
            self.faults[path] = str(error)
        except OSError:  # It is not there.
            pass
        return {}

    def _record_path(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def _has_result(self, record: dict[str, Any]) -> bool:
        """Whether the result of a cell can be read; a file that is as it was when the cell was finished is not looked into."""
        folder = self.folder / str(record.get("run"))
        path = folder / "result.json"
        self.faults.pop(path, None)
        try:
            stamp = _stamp(path)
            if stamp not in (record.get("result"), self._whole.get(path)):
                read_result(folder)
                self._whole[path] = stamp
        except UserError as error:
            self.faults[path] = str(error)
            return False
        except (OSError, ValueError):  # It is not there, or its name is none.
            return False
        return True

    def update(self, key: str, **values: Any) -> None:
        """Change a cell's record; only the owner of its lease, or who found its owner dead, may."""
        CELL.write(self._record_path(key), {**self.record(key), **values})

    def log(self, cell: Cell) -> Path:
        """What the cell's run said.

        Returns:
            A path, which need not exist yet.
        """
        return self.folder / "cells" / f"{cell.key}.log"

    def run_folder(self, cell: Cell) -> Path:
        """The run folder of a cell that is done.

        Returns:
            A path.
        """
        return self.folder / str(self.record(cell.key).get("run"))

    def result(self, cell: Cell) -> dict[str, Any]:
        """What result.json holds of a cell that is done.

        Returns:
            The checked contents.
        """
        return {**read_result(self.run_folder(cell))}

    @contextmanager
    def lease(self, key: str) -> Iterator[bool]:
        """Hold a cell, or learn that somebody else does; a dead owner holds nothing.

        Yields:
            True where the cell is held by this process.
        """
        with locked(self.folder / "cells" / f"{key}.lock", required=True) as mine:
            yield mine

    def is_leased(self, key: str) -> bool:
        """Whether somebody works on a cell at this moment.

        Returns:
            True while its owner lives.
        """
        with self.lease(key) as mine:
            return not mine

    def begin(self, cell: Cell) -> None:
        """Note that this process, which holds the cell's lease, works on it from now on."""
        remove_temporaries(self.folder / "cells", f"{cell.key}.json")
        described = {
            "method": cell.method,
            "setting": asdict(cell.setting),
            "candidate": cell.candidate,
            "stage": cell.stage,
            "seed": cell.spec.seed,
        }
        self.update(
            cell.key, state="running", cell=described, spec=cell.spec.to_dict(), inputs=self._inputs(cell), pid=os.getpid(), host=socket.gethostname(), began=time.time(),
            run=None, error=None, progress=None,
        )  # fmt: skip

    def finish(self, cell: Cell, run: Path) -> None:
        """Note the run folder of a cell."""
        self.update(cell.key, state="done", run=os.path.relpath(run, self.folder), result=_stamp(run / "result.json"), progress=None)

    def fail(self, key: str, message: str) -> None:
        """Note why a cell has no result."""
        self.update(key, state="failed", error=message, progress=None)

    def crashed(self, key: str, why: str, pid: int | None = None) -> None:
        """Record that a worker died. After the second death the cell is marked failed.

        Does nothing if another worker holds the lease, or if process `pid` never started the cell.

        Args:
            key: Of the cell.
            why: How the process ended, in words.
            pid: The process; None for whichever had the cell.
        """
        with self.lease(key) as mine:
            record = self.record(key)
            if not mine or record.get("state") != "running" or (pid is not None and record.get("pid") != pid):
                return
            crashes = record.get("crashes", 0) + 1
            state = "failed" if crashes >= CRASHES else "stopped"
            self.update(
                key,
                state=state,
                crashes=crashes,
                error=f"its process died {number_of(crashes, 'time')}; the last time {why}.",
                progress=None,
            )

    def left(self, key: str) -> None:
        """Record that nobody is at a cell any more through no fault of its run; nothing where somebody is, or it was not begun."""
        with self.lease(key) as mine:
            if mine and self.record(key).get("state") == "running":
                self.update(key, state="stopped", progress=None)

    def reset_failed(self) -> int:
        """Let failed cells be tried again; says how many.

        Returns:
            A count, 0 or more.
        """
        failed = [cell for cell in self.cells() if self.state(cell) == "failed"]
        for cell in failed:
            with self.lease(cell.key) as mine:
                # Another command may have reset it, and even finished it, since the look above.
                if mine and self.record(cell.key).get("state") == "failed":
                    self.update(cell.key, state="waiting", crashes=0, error=None)
        self._settled.clear()
        self._chosen.clear()
        self._grown.clear()
        return len(failed)

    def _inputs(self, cell: Cell) -> str:
        """Names, sizes and times of data and weights: where they changed, the run itself decides by content whether it is done."""
        spec = cell.spec
        return hashlib.sha256(
            "".join(self._print(text) for text in (spec.data, spec.weights, spec.source_data, spec.exclude) if text).encode()
        ).hexdigest()[:12]

    def _print(self, path: str) -> str:
        if path not in self._prints:
            self._prints[path] = fingerprint(Path(path))
        return self._prints[path]


def with_defaults(raw: dict[str, Any], version: str) -> dict[str, Any]:
    """A grid's mapping whose base says whose defaults its runs take: `version`, unless it says so itself.

    Returns:
        A new mapping.
    """
    return {**raw, "base": {"defaults": version, **(raw.get("base") or {})}}


def _defaults_of(stored: dict[str, Any]) -> str:
    """Whose defaults the runs of a study's folder take: today's in a new one; rekindle 0.1.0 did not name its own."""
    if not stored:
        return RunSpec.defaults
    return str((stored["grid"].get("base") or {}).get("defaults", "0.1"))


def same_spec(before: dict[str, Any], now: RunSpec) -> bool:
    """Whether a run made with `before` is the run that is asked for now; an option that was unknown then must stand at its default.

    Returns:
        True where nothing has to be run again.
    """
    if before == now.to_dict():
        return True
    try:
        return RunSpec.from_dict(before) == now
    except SURPRISES:
        return False


def _stamp(path: Path) -> list[int]:
    """Time of change and size, by which a file that was written over shows."""
    facts = path.stat()
    return [facts.st_mtime_ns, facts.st_size]


def fingerprint(path: Path) -> str:
    """Names, sizes and times of change of a file, or of all below a folder; the name alone where there is nothing.

    Returns:
        A text that changes with the files.
    """
    if not path.exists():
        return path.name
    files = [path] if path.is_file() else sorted(Path(root) / name for root, _, names in os.walk(path) for name in names)
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file.relative_to(path)}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], Grid]:
    """study.yaml, and its grid made again."""
    found = STUDY.read_yaml(path)
    with STUDY.surprises(path):
        grid = from_dict(with_defaults(found["grid"], "0.1"))
    return {"grid": found["grid"], "threads": found["threads"]}, grid


def _refuse_later(folder: Path) -> None:
    """Keep from writing over the records of a later rekindle; those that are damaged are done again."""
    for path in folder.glob("cells/*.json"):
        try:
            CELL.read(path)
        except Later:
            raise
        except Unreadable:
            continue
