"""Imports go down only, and starting is quick."""

import ast
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src" / "rekindle"
LEVELS = {
    "draws": 0, "errors": 0, "files": 0, "method": 0, "methods": 1, "checkpoints": 2, "taps": 0, "schedule": 2, "directing": 2, "tuner": 2, "models": 2, "data": 2, "analysis": 2, "probe": 2,
    "trainer": 3, "integrations": 3, "registry": 3, "spec": 0, "run_folder": 4, "runs": 4, "select": 4, "report": 4, "demo": 4, "study": 4, "progress": 5, "cli": 5, "cli_study": 5, "cli_analyze": 5, "rank": 4, "cli_data": 5,
}  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for name in names:
            if name == "rekindle" and isinstance(node, ast.ImportFrom):
                found |= {alias.name for alias in node.names if alias.name in LEVELS}
            elif name.startswith("rekindle."):
                found.add(name.split(".")[1])
    return found


def test_every_room_has_a_level() -> None:
    rooms = {room(path) for path in SRC.rglob("*.py")} - {"__init__", "__main__"}
    assert rooms == LEVELS.keys()


def test_imports_go_down() -> None:
    for path in SRC.rglob("*.py"):
        if room(path) in LEVELS:
            for other in imported(path):
                assert LEVELS[other] <= LEVELS[room(path)], f"{path.relative_to(SRC)} imports {other}"


def test_the_tuner_knows_no_method_but_the_default_schedule_and_sum() -> None:
    text = (SRC / "tuner.py").read_text("utf-8")
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
        assert not calls or room(path).startswith("cli"), path


def test_import_is_light() -> None:
    code = "import sys, rekindle; rekindle.fit; print(*[m for m in ('matplotlib', 'lightning', 'timm', 'transformers', 'ray') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_help_loads_no_torch() -> None:
    code = "import sys\nfrom rekindle.cli import main\ntry: main(['fit', '--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
