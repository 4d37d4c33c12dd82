"""A study taken apart into frozen cells: one run each, grouped by setting and method."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rekindle.errors import number_of
from rekindle.spec import RunSpec
from rekindle.study.search import Search

FIRST_SELECTION_SEED = 1000


@dataclass(frozen=True, order=True)
class Setting:
    """Where methods compete: the same task, size and regulariser.

    Attributes:
        regularizer: Its name in the grid; "" where the grid has none.
        task: Its name in the grid.
        size: Training pictures a class; 0 for all.
    """

    regularizer: str
    task: str
    size: int

    def __str__(self) -> str:
        return ", ".join(part for part in (self.task, size_text(self.size), self.regularizer) if part)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        setting: Task, size and regulariser.
        method: Its name in the grid.
        candidate: The values from the method's own grid, such as "p=0.2"; "" for a method without one.
        stage: "select", which reads validation alone, or "final".
        spec: The run.
        turn: When its turn is: the number of its block, 0 or 1 for choosing or final, the position of its seed.
    """

    setting: Setting
    method: str
    candidate: str
    stage: str
    spec: RunSpec
    turn: tuple[int, int, int]

    @cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits of what the spec sets: cells that ask for the same run share it, and options that a later version
        adds do not change it."""
        return hashlib.sha256(json.dumps(self.spec.identity(), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        chosen = f" ({self.candidate})" if self.candidate else ""
        purpose = " to choose" if self.stage == "select" else ""
        return f"{self.method}{chosen}, {self.setting}, seed {self.spec.seed}{purpose}"


@dataclass(frozen=True)
class Group:
    """A method in a setting, with the settings of a run for each candidate.

    Attributes:
        setting: Task, size and regulariser.
        method: Its name in the grid.
        candidates: {"p=0.2": settings of RunSpec without a seed}.
        blocks: {seed of final runs: number of the block that asks for it}.
        selection: How the candidate is chosen.
        search: Proposes further candidates; None where all are given.
    """

    setting: Setting
    method: str
    candidates: dict[str, dict[str, Any]]
    blocks: dict[int, int]
    selection: "Selection"
    search: Search | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the final runs."""
        return tuple(self.blocks)

    @property
    def budget(self) -> int:
        """Among how many candidates one is chosen in the end."""
        return self.search.trials if self.search else len(self.candidates)

    @property
    def searches(self) -> bool:
        """Whether there is anything to choose."""
        return self.budget > 1

    @cached_property
    def selection_cells(self) -> list[Cell]:
        """Runs that the choice rests on; none where there is one candidate."""
        if not self.searches:
            return []
        extra = {**self.selection.settings, "test": False, "test_every_epoch": False, "record": None}
        first = min(self.blocks.values())
        return [
            self._cell(name, "select", seed, extra, (first, 0, position))
            for position, seed in enumerate(self.selection.seeds)
            for name in self.candidates
        ]

    @cached_property
    def final_cells(self) -> dict[str, list[Cell]]:
        """Runs that read the test split, by candidate."""
        turns = {seed: (block, 1, position) for position, (seed, block) in enumerate(self.blocks.items())}
        return {name: [self._cell(name, "final", seed, {}, turn) for seed, turn in turns.items()] for name in self.candidates}

    def _cell(self, candidate: str, stage: str, seed: int, extra: dict[str, Any], turn: tuple[int, int, int]) -> Cell:
        spec = RunSpec(**{**self.candidates[candidate], **extra, "seed": seed})
        return Cell(self.setting, self.method, candidate, stage, spec, turn)


@dataclass(frozen=True)
class Selection:
    """How one value of each method's grid is chosen: by mean validation accuracy over seeds that the final runs do not use.

    Attributes:
        seeds: Of the runs that choose.
        settings: What those runs change, such as val_fraction.
        equal_budgets: Refuse methods with different numbers of candidates.
        test_selected: Also run every candidate with the final seeds, for a table of its own that chooses on the test split.
        trials: Candidates of a method that chooses from a range of values.
    """

    seeds: tuple[int, ...] = tuple(range(FIRST_SELECTION_SEED, FIRST_SELECTION_SEED + 3))
    settings: dict[str, Any] = field(default_factory=dict)
    equal_budgets: bool = True
    test_selected: bool = False
    trials: int = 0


@dataclass(frozen=True)
class Grid:
    """A checked study.

    Attributes:
        raw: The mapping it was made from, after scale and roots were put in; `from_dict` makes it again.
        name: Of the study.
        title: For its report.
        baseline: The method that the others are compared with.
        methods: Names of the methods.
        published: {"methods": {name: published name}, "tasks": {name: published name}}.
        groups: A method in a setting each, in the order in which they are run.
    """

    raw: dict[str, Any]
    name: str
    title: str
    baseline: str
    methods: tuple[str, ...]
    published: dict[str, dict[str, str]]
    groups: tuple[Group, ...]

    @property
    def settings(self) -> list[Setting]:
        """Every setting once."""
        return list(dict.fromkeys(group.setting for group in self.groups))


def by_setting(groups: Iterable[Group]) -> dict[Setting, list[Group]]:
    """The methods that compete in each setting.

    Returns:
        Groups by (regulariser, task, size), in the order of the grid.
    """
    found: dict[Setting, list[Group]] = {}
    for group in groups:
        found.setdefault(group.setting, []).append(group)
    return found


def uneven_choices(grid: Grid) -> list[str]:
    """Sentences on settings of a run, such as lr, that some methods choose among several values for and others do not.

    A method that chooses its learning rate has an advantage over one that cannot, whatever else the two do.

    Returns:
        Sentences; none where all choose alike.
    """
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for setting, groups in by_setting(grid.groups).items():
        varied = {group.method: _varied(group) for group in groups}
        for name in sorted(set().union(*varied.values())):
            fixed = tuple(method for method, names in varied.items() if name not in names)
            if fixed:
                found.setdefault((name, fixed), []).append(str(setting))
    return [
        f"{', '.join(fixed)} cannot choose {name}, which other methods choose in {_some(settings)}; "
        f"compare them with care, or give every method the same values by shared: {{{name}: [...]}}."
        for (name, fixed), settings in found.items()
    ]


def _varied(group: Group) -> set[str]:
    """Settings of a run, recipes aside, that differ among a method's candidates."""
    candidates = list(group.candidates.values())
    names = {name for candidate in candidates for name in candidate} - {"method", "direction"}
    searched = names & set(group.search.space if group.search else ())
    return searched | {name for name in names if len({repr(candidate.get(name)) for candidate in candidates}) > 1}


def _some(settings: list[str]) -> str:
    return settings[0] if len(settings) == 1 else number_of(len(settings), "setting")


def size_text(size: int) -> str:
    """ "30 a class", or "all pictures".

    Returns:
        Words for a table.

    Examples:
        >>> size_text(30), size_text(0)
        ('30 a class', 'all pictures')
    """
    return f"{size} a class" if size else "all pictures"
