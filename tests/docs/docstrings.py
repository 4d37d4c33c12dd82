"""The public functions of the package, read without importing it, and what their docstrings hold."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src/rekindle"
NOTHING = {"None", "Never", "NoReturn", "Self", "'Self'"}
PASSED_BY = {"property", "cached_property", "override", "overload", "functools.cached_property", "typing.override"}
OF_LIBRARIES = {"forward", "state_dict", "load_state_dict", "get_lr", "train", "extra_repr"}  # What torch and its like document already.
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Found:
    """A public function or method."""

    path: Path
    name: str
    node: Function

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def returns(self) -> bool:
        return "\nReturns:\n" in self.doc or "\nYields:\n" in self.doc

    @property
    def gives_something(self) -> bool:
        return self.node.returns is not None and ast.unparse(self.node.returns) not in NOTHING


def modules() -> dict[Path, ast.Module]:
    """The public modules."""
    paths = [
        path for path in sorted(SOURCE.rglob("*.py")) if not any(part.startswith("_") and part != "__init__.py" for part in path.parts)
    ]
    return {path: ast.parse(path.read_text("utf-8")) for path in paths}


def functions() -> list[Found]:
    """Public functions, and methods of public classes, but properties and what overrides a method that is documented where it is declared."""
    trees = modules()
    classes = {node.name: node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return [found for path, tree in trees.items() for found in _in(path, tree.body, classes, None)]


def _in(path: Path, body: list[ast.stmt], classes: dict[str, ast.ClassDef], owner: ast.ClassDef | None) -> Iterator[Found]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _in(path, node.body, classes, node)
        if isinstance(node, Function) and not node.name.startswith("_") and not _passed_by(node, owner, classes):
            yield Found(path, f"{owner.name}.{node.name}" if owner else node.name, node)


def _passed_by(node: Function, owner: ast.ClassDef | None, classes: dict[str, ast.ClassDef]) -> bool:
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    return bool(marks & PASSED_BY) or (owner is not None and (node.name in OF_LIBRARIES or _declared_above(node.name, owner, classes)))


def _declared_above(name: str, owner: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    """Whether a base class of the package has a method of that name with a docstring."""
    for base in owner.bases:
        above = classes.get(ast.unparse(base).rpartition(".")[2].partition("[")[0])
        if above is None or above is owner:
            continue
        if any(isinstance(part, Function) and part.name == name and ast.get_docstring(part) for part in above.body):
            return True
        if _declared_above(name, above, classes):
            return True
    return False
