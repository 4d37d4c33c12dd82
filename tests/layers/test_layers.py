"""Imports go down only, and starting is quick."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from rekindle.study.grid_file import from_dict
from rekindle.study.store import Study
from tests.toys import picture_folder

SRC = Path(__file__).resolve().parents[2] / "src" / "rekindle"
ROOMS = (
    "errors", "files", "stored", "digests", "locks", "rng", "hooks", "spec", "records", "method", "models", "methods", "data", "registry", "tuner", "analysis", "training", "run", "report",
    "exporting", "serving", "fitting", "oracle", "study", "board", "testing", "integrations", "cli",
)  # fmt: skip
HALL = ("__init__", "__main__")


def room(module: str) -> str:
    """The room of a module such as "rekindle.data.splits"; the package itself and `python -m` stand in the hall."""
    return module.split(".")[1] if "." in module else "__init__"


def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name, parsed."""
    names = {path: ".".join(("rekindle", *path.relative_to(SRC).with_suffix("").parts)) for path in SRC.rglob("*.py")}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text("utf-8")) for path, name in names.items()}


MODULES = modules()


def imports(tree: ast.Module) -> set[str]:
    """Modules of rekindle that a module imports anywhere, function bodies and type checking included."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module or "" for name in inside}
    return found & MODULES.keys()


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} - set(HALL) == set(ROOMS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_room_imports_only_rooms_before_it(name: str) -> None:
    mine = room(name)
    for other in imports(MODULES[name]):
        if mine not in HALL and room(other) != mine:
            assert room(other) in ROOMS[: ROOMS.index(mine)] or (mine == "cli" and other == "rekindle"), f"{name} imports {other}"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Function bodies included: `TopologicalSorter` raises CycleError, which shows the circle."""
    TopologicalSorter({name: imports(tree) - {name} for name, tree in MODULES.items() if name != "rekindle"}).prepare()


def test_the_tuner_knows_no_method_but_the_default_schedule_and_sum() -> None:
    text = (SRC / "tuner/__init__.py").read_text("utf-8")
    names = {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rekindle.methods")
    }
    assert names == {"rekindle.methods.directions.plain", "rekindle.methods.restarts.cosine"}


def test_only_the_command_prints() -> None:
    for path in SRC.rglob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        ]
        assert not calls or path.parent.name == "cli", path


HEAVY = ("lightning_fabric", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "timm", "torch", "torchmetrics", "torchvision")


def test_import_is_light() -> None:
    code = f"import sys, rekindle, rekindle.cli; rekindle.fit; print(*set({HEAVY}) & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


FIRST_STEP = """
import sys, rekindle
from rekindle.errors import Stopped
from rekindle.training.listener import Silent
class First(Silent):
    def step(self, *args):
        print(*set({later}) & set(sys.modules))
        raise Stopped("seen")
try:
    rekindle.fit("photos", model="tiny", image_size=16, batch_size=4, device="cpu", workers=0, listener=First())
except Stopped:
    pass
"""
LATER = ("lightning.pytorch", "matplotlib", "timm", "torchmetrics", "transformers")


def test_the_first_step_waits_for_nothing_that_is_needed_later(tmp_path: Path) -> None:
    picture_folder(tmp_path / "photos", {"train": 4, "val": 2, "test": 2})
    done = subprocess.run([sys.executable, "-c", FIRST_STEP.format(later=LATER)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


STATIC = [
    ["fit", "--help"], ["data", "list"], ["data", "info", "dtd"], ["data", "cache"], ["study", "status", "STUDY"], ["methods"], ["methods", "rifle"], ["--version"],
]  # fmt: skip


QUIET = """
import contextlib, io, sys
from rekindle.cli import main
for arguments in {commands}:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code or 0
    assert status == 0 and printed.getvalue().strip(), arguments
    assert "torch" not in sys.modules, arguments
"""


def test_what_prints_a_static_thing_loads_no_torch(tmp_path: Path) -> None:
    Study.create(tmp_path / "STUDY", from_dict({"name": "empty", "tasks": {"dtd": {"data": "dtd"}}, "methods": {"l2": "l2"}}))
    code = QUIET.format(commands=STATIC)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
