"""What `--method auto` and `--freeze auto` have in common: trials that read no test split, and the run that is kept, which does."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rekindle.data import Dataset, open_data
from rekindle.errors import UserError, agree
from rekindle.fitting.folder_names import slug
from rekindle.fitting.shared import Shared
from rekindle.spec import AUTO, RunSpec
from rekindle.training.checkpoints import remove_states


@dataclass(frozen=True)
class Search:
    """A search among runs of a spec.

    Attributes:
        name: The first word of its folder's name.
        spec: What is searched for.
        out: Where run folders go; the search has a folder of its own among them.
        length: Of all trials, in whole runs.
    """

    name: str
    spec: RunSpec
    out: Path
    length: int

    @property
    def folder(self) -> Path:
        """Where the trials' run folders are; each fold of a cross-validation has its own."""
        data = slug(Path(self.spec.data.removeprefix("hf:")).resolve().name)
        fold = f"-fold{self.spec.fold.replace('/', 'of')}" if self.spec.fold else ""
        return self.out / f"{self.name}-{data}-s{self.spec.seed}{fold}"

    def trial(self, **changes: Any) -> RunSpec:
        """A run that chooses."""
        return replace(self.final(**changes), test=False, test_every_epoch=False)

    def final(self, **changes: Any) -> RunSpec:
        """The run that is kept; it has as many minutes as a trial, so that all of them together keep to the limit."""
        minutes = self.spec.minutes and self.spec.minutes / (self.length + self._trains_anew)
        return replace(self.spec, **{"minutes": minutes, **changes})

    def go_on(self, shared: Shared, trial: Path) -> Shared:
        """What the trials have in common, for the run that is kept: it goes on from where its trial ended."""
        shared.trial, shared.start = False, None if self._trains_anew else trial / "checkpoints"
        return shared

    @property
    def _trains_anew(self) -> bool:
        """A trial's checkpoint does not know how its epochs did on the test split."""
        return self.spec.test_every_epoch


def remove_checkpoints(trials: Iterable[Path]) -> None:
    """Take away those of run folders that nothing goes on from any more."""
    for folder in trials:
        remove_states(folder / "checkpoints")


def check_validation(spec: RunSpec, dataset: Dataset | None = None) -> None:
    """Refuse what chooses on validation where the data bring no such split and `--val-fraction 0` takes out none.

    Args:
        spec: Of a run or a search.
        dataset: Its data, where they are open.

    Raises:
        UserError: Naming the options that need it.
    """
    asked = {"--method auto": spec.method == AUTO, "--freeze auto": spec.freeze == AUTO, "--keep best": spec.keep == "best"}
    asked[f"--patience {spec.patience}"] = spec.patience is not None
    flags = [flag for flag, there in asked.items() if there]
    if spec.val_fraction > 0 or not flags:
        return
    if "val" not in (dataset or open_data(spec.data, **spec.data_options())).splits:
        raise UserError(
            f"{' and '.join(flags)} {agree(len(flags), 'chooses')} on validation, and --val-fraction 0 takes no such split out of {spec.data}; "
            f"give a --val-fraction above 0, or leave {' and '.join(flags)} out."
        )
