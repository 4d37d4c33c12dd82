"""Where rekindle keeps what it has downloaded and prepared."""

import os
from pathlib import Path


def home(root: Path | str | None = None) -> Path:
    """`root`, else the folder that REKINDLE_HOME names, else ~/.cache/rekindle."""
    return Path(root or os.environ.get("REKINDLE_HOME") or Path.home() / ".cache" / "rekindle").expanduser()
