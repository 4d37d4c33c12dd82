"""The oracle experiment as a study: a YAML file with the key `oracle` in the place of tasks and methods.

name: mlp_oracle
oracle: {seeds: 10, rates: [0.01, 0.1], noises: [0.1, 0.01]}        # settings of `rekindle analyze mlp-oracle`
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekindle.errors import Later, Unreadable, UserError, shown
from rekindle.files import read_yaml
from rekindle.stored import FileFormat

if TYPE_CHECKING:
    from rekindle.oracle.settings import OracleSettings

KEYS = ("name", "oracle")
SETTINGS = "settings.json"
DONE = FileFormat(2, dict[str, Any])


@dataclass(frozen=True)
class OracleStudy:
    """A checked file.

    Attributes:
        name: Of the study.
        settings: Of the experiment.
    """

    name: str
    settings: "OracleSettings"

    @property
    def cells(self) -> int:
        """Methods x rates x noises, each with all seeds."""
        from rekindle.oracle.experiment import METHODS

        return len(METHODS) * len(self.settings.rates) * len(self.settings.noises)

    def is_done(self, folder: Path) -> bool:
        """Whether the folder holds the results of these very settings.

        Returns:
            True where nothing is left to run.
        """
        path = folder / SETTINGS
        try:
            return path.exists() and DONE.read(path) == self._plain()
        except Later:
            raise
        except Unreadable:  # Then it is run again.
            return False

    def run(self, folder: Path, progress: Callable[[str, int, int], None]) -> list[Path]:
        """Run every cell and write table, numbers and picture; the settings come last, so that their file means done.

        Returns:
            Paths of what was written.
        """
        from rekindle.oracle.experiment import run_oracle
        from rekindle.oracle.tables import write_oracle

        rows = run_oracle(self.settings, progress)
        paths = write_oracle(folder, rows, self.settings)
        DONE.write(folder / SETTINGS, self._plain())
        return paths

    def _plain(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        return found


def load_oracle(path: Path | str) -> OracleStudy | None:
    """The file, if it is an oracle study; None for other grids and for what `rekindle.study.grid_file.load` will refuse.

    Returns:
        The study, or None.

    Raises:
        UserError: In one sentence that names the key and what is allowed there.
    """
    try:
        raw = read_yaml(Path(path))
    except UserError:
        return None
    if not isinstance(raw, dict) or "oracle" not in raw:
        return None
    from rekindle.oracle.settings import OracleSettings

    allowed = {field.name: field.default for field in dataclasses.fields(OracleSettings)}
    wrong = [key for key in raw if key not in KEYS]
    if wrong:
        raise UserError(f"{path}: an oracle study has the keys {' and '.join(KEYS)}, found {shown(wrong[0])}.")
    given = raw["oracle"] or {}
    if not isinstance(given, dict) or not set(given) <= allowed.keys():
        raise UserError(f"{path}: oracle must be a mapping with keys among {', '.join(allowed)}, found {shown(given)}.")
    for key, value in given.items():
        _check(f"{path}: oracle.{key}", value, allowed[key])
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return OracleStudy(str(raw.get("name", "oracle")), OracleSettings(**settings))


def _check(where: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default's."""
    values = value if isinstance(default, tuple) and isinstance(value, list) else [value]
    kind = int if isinstance(default, int) else float
    right = isinstance(value, list) == isinstance(default, tuple)
    if not right or not all(isinstance(item, int | kind) and not isinstance(item, bool) for item in values):
        raise UserError(f"{where} must be like {list(default) if isinstance(default, tuple) else default}, found {shown(value)}.")
