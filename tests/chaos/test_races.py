"""Two equal commands that start at once: one does the job, the other is refused in a sentence or finds it done, and nothing is lost."""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rekindle.cli import main
from rekindle.data import Cache, Pixels
from rekindle.data.cache.decode import decode
from rekindle.data.tasks import TASKS
from rekindle.data.tasks.prepare import prepare
from rekindle.data.tasks.verify import verify
from rekindle.errors import UserError
from rekindle.study.grid_file import load
from rekindle.study.store import Study
from tests.chaos.commands import EPOCHS, fit, run_of, run_study
from tests.chaos.ledger import Tally, counted
from tests.data.miniatures import miniature, photograph
from tests.faults.equal_runs import assert_equal_runs
from tests.faults.racers import Ended, race_of
from tests.study import fakes
from tests.toys import picture_folder

pytestmark = pytest.mark.chaos
SEED, RACES, RACERS, EDGE = 18, 50, 2, 16
TASK = "dtd"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "data", {"train": 6, "val": 3, "test": 2}, size=24)


def settle(ended: list[Ended], tally: Tally, check: Callable[[], object]) -> None:
    """Count a race: whoever failed said one sentence, and `check` finds everything whole."""
    try:
        assert any(one.status == 0 for one in ended), ended
        assert all(one.status == 0 or (one.status in (1, 2) and "Traceback" not in one.said) for one in ended), ended
        check()
    except (AssertionError, UserError, OSError, ValueError) as error:
        tally.lose(f"race {tally.times}: {error}")
        return
    refused = [one.said.splitlines()[-1] for one in ended if one.status]
    tally.add(refused[0] if refused else "both did the job, or found it done")


def test_two_fits(data: Path, tmp_path: Path, count: Callable[[int], int]) -> None:
    assert fit(data, tmp_path / "calm") == 0
    calm = run_of(tmp_path / "calm")
    with counted("two equal `fit` at once", SEED) as tally:
        for _ in range(count(RACES)):
            out = tmp_path / "out"

            def check(out: Path = out) -> None:
                assert_equal_runs(run_of(out), calm, EPOCHS)
                assert not list(out.rglob("*.tmp"))

            settle(race_of([partial(fit, data, out)] * RACERS), tally, check)
            shutil.rmtree(out)


def study_run(grid: Path, out: Path) -> int:
    """In a process of its own: a study whose runs train nothing."""
    return run_study(Study.create(out, load(grid)), 1, fakes.answer)


def test_two_study_runs(tmp_path: Path, count: Callable[[int], int]) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump({**fakes.GRID, "seeds": 1, "sizes": [10]}), "utf-8")
    with counted("two equal `study run` at once", SEED) as tally:
        for _ in range(count(RACES)):
            out = tmp_path / "out"

            def check(out: Path = out) -> None:
                study = Study.open(out)
                assert all(study.state(cell) == "done" for cell in study.cells())
                assert len((out / "calls").read_text("utf-8").splitlines()) == len(study.cells())

            settle(race_of([partial(study_run, grid, out)] * RACERS), tally, check)
            shutil.rmtree(out)


def prepared(archives: Path, root: Path) -> int:
    """In a process of its own: prepare a miniature of a task."""
    TASKS[TASK] = miniature(TASK, archives, photograph)
    prepare(TASK, [archives], root=root)
    return 0


def test_two_preparations(tmp_path: Path, count: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, TASK, miniature(TASK, tmp_path / "archives", photograph))
    with counted("two equal `data prepare` at once", SEED) as tally:
        for number in range(count(RACES)):
            root = tmp_path / "root"
            actions = [partial(prepared, tmp_path / f"archives{number}-{racer}", root) for racer in range(RACERS)]

            def check(root: Path = root) -> None:
                verify(TASK, root=root)
                assert not list(root.rglob("*.partial"))

            settle(race_of(actions), tally, check)
            shutil.rmtree(root)


def loaded(paths: list[Path], folder: Path) -> int:
    """In a process of its own: read pictures through a cache; each must be what decoding it alone gives."""
    found = Pixels.load(paths, EDGE, cache=Cache(folder), note=lambda text: None)
    return 0 if all((found[index] == decode(path, EDGE)).all() for index, path in enumerate(paths)) else 3


def test_one_cache(tmp_path: Path, count: Callable[[int], int]) -> None:
    stream, draw = random.Random(SEED), np.random.default_rng(SEED)
    paths = [tmp_path / f"{number}.png" for number in range(60)]
    for path in paths:
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    with counted("two commands that fill one cache at once", SEED) as tally:
        for number in range(count(RACES)):
            cache = tmp_path / f"cache{number // 5}"  # Cold, and then filled in part.
            parts = [stream.sample(paths, 30) for _ in range(RACERS)]
            settle(race_of([partial(loaded, part, cache) for part in parts]), tally, partial(whole, paths, cache))


def whole(paths: list[Path], cache: Path) -> None:
    """What the cache holds is what decoding gives."""
    assert loaded(paths, cache) == 0


def test_two_predictions(data: Path, tmp_path: Path, count: Callable[[int], int]) -> None:
    assert fit(data, tmp_path) == 0
    out = tmp_path / "found.csv"
    command = ["predict", str(run_of(tmp_path)), str(data), "--out", str(out)]
    assert main(command) == 0
    expected = out.read_bytes()
    with counted("two equal `predict --out` at once", SEED) as tally:
        for _ in range(count(RACES)):
            out.unlink()

            def check() -> None:
                assert out.read_bytes() == expected and not list(tmp_path.glob(".found.csv*"))

            settle(race_of([partial(main, command)] * RACERS), tally, check)
