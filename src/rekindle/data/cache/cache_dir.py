"""Where rekindle keeps what it has downloaded and prepared."""

import os
from pathlib import Path

from rekindle.files import expand


def home(root: Path | str | None = None) -> Path:
    """`root`, else the folder that REKINDLE_HOME names, else ~/.cache/rekindle.

    For a user without a folder, as in a container, it is a place where nothing is and nothing can be written, so that all goes on without.

    Returns:
        A folder, which need not exist yet.
    """
    found = expand(root or os.environ.get("REKINDLE_HOME") or Path("~", ".cache", "rekindle"))
    return Path(os.devnull, *found.parts) if found.parts[:1] == ("~",) else found
