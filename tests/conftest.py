"""Fixtures shared by every room of the test suite."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rekindle.report import cards, run_pictures

SHARED = Path(__file__).resolve().parents[2] / "shared"
DRAWING = ("cli", "docs", "report", "run")
LONGEST = ("contract", "faults", "loops", "study", "training", "fitting", "cli")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of single rooms, which pytest must know before it looks into them."""
    parser.addoption("--rewrite-golden", action="store_true", help="write down what the commands show now; see tests/cli/test_golden.py")
    parser.addoption("--chaos-share", type=float, default=1.0, help="share of the chaos run's counts, for trying it out")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker of `make test` is left alone with one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is cached or downloaded outside the test's own folder; child processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REKINDLE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    """Small tensors run fastest on one thread, and results are compared bit for bit at one count, also with child processes."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session", autouse=True)
def _few_pictures() -> Iterator[None]:
    """Runs in this process draw grids of few pictures: full ones, which tests/report draws, take half the time of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_pictures, "SAMPLES", 3)
        patch.setattr(cards, "WORST", 3)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and weights that lies beside the project, where there is one."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared/data beside the project: tests on real photographs need it")
    return SHARED


def _draws(request: pytest.FixtureRequest) -> bool:
    return request.path.parent.name in DRAWING or getattr(request.module, "DRAWS", False)


@pytest.fixture(scope="module", autouse=True)
def _drawing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs in this process draw only where a room is about what a run shows, or a module has `DRAWS = True`: drawing takes two thirds of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_pictures", "write_samples") if not _draws(request) else ():
            patch.setattr(run_pictures, name, lambda *_: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _a_checkpoint_after_each_epoch() -> Iterator[None]:
    """How often a run saves its state hangs on the machine's pace, which no test may; `tests/training/test_saving.py` looks at that."""
    from rekindle.training import trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "SPARSELY", 0)
        yield
