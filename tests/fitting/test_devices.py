"""Several devices train together: what one run leaves for the next step of a search is there on every rank."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.toys import TINY_RUN, picture_folder


def test_a_search_over_two_ranks_ends(tmp_path: Path) -> None:
    picture_folder(tmp_path / "photos", {"train": 6, "val": 2, "test": 2})
    options = {**TINY_RUN, "devices": 2, "epochs": 2}
    del options["method"], options["lr"], options["device"], options["workers"]
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "rekindle", "fit", "photos", "--freeze", "auto", *words, "--device", "cpu", "--workers", "0", "--json"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["status"] == "done"
