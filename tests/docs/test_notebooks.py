"""The notebooks' cells run from top to bottom without a network connection, and are kept without outputs."""

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs/notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    return list(notebook["cells"])


def run_cell(source: str, space: dict[str, Any]) -> Any:
    """What a kernel does: run the statements, and give the value of a last expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), space)  # noqa: S102
    return eval(compile(ast.Expression(last.value), "cell", "eval"), space) if isinstance(last, ast.Expr) else None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    found = cells(path)
    assert len({cell["id"] for cell in found}) == len(found)
    for cell in found:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_it_imports_is_there(path: Path) -> None:
    """Its cells run with the slow tests alone."""
    code = "\n".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code")
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rekindle")]
    assert found
    for node in found:
        module = importlib.import_module(str(node.module))
        assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rekindle.errors.RekindleWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "__main__"}
    values = [run_cell("".join(cell["source"]), space) for cell in cells(path) if cell["cell_type"] == "code"]
    shown = [value for value in values if value is not None]
    assert shown and any(hasattr(value, "_repr_html_") and "data:image/" in value._repr_html_() for value in shown)
