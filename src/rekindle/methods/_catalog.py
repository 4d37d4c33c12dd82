"""What is said of each method and direction, read from its file without running it: so a list of them needs no torch.

A class is a method or a direction if it lies in a file below `rekindle.methods`, whose name does not begin with "_", and states a
`paper`. Its options are its annotated fields and those of its bases, as a dataclass has them.
"""

import ast
import builtins
import difflib
import importlib.util
import inspect
import pkgutil
import re
import typing
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import annotated_types

from rekindle import spec
from rekindle.errors import UserError, shown

LIBRARY = "rekindle"
GROUP = "rekindle.methods"  # The entry points by which other packages bring methods.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rifle_a": ("rifle", {"cycle": "none"}),
    "rifle_b": ("rifle", {"reinitialize": False}),
}


@dataclass(frozen=True)
class Option:
    """An option of a method: its default, and what it takes in words."""

    default: Any
    words: str


@dataclass(frozen=True)
class MethodEntry:
    """One method or direction.

    Attributes:
        name: In recipes.
        kind: Name of its class.
        module: Where that is.
        family: The folder below `rekindle.methods`, or the module of one from elsewhere.
        paper: Citation, one line.
        doc: Its docstring.
        options: By name, in order.
        package: Who brings it.
    """

    name: str
    kind: str
    module: str
    family: str
    paper: str
    doc: str
    options: dict[str, Option]
    package: str = LIBRARY

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.doc.partition("\n")[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        options = {name: option.default for name, option in self.options.items()}
        takes = {name: option.words for name, option in self.options.items()}
        return {
            "family": self.family, "package": self.package, "summary": self.summary, "paper": self.paper, "options": options, "takes": takes,
        }  # fmt: skip


def library() -> dict[str, MethodEntry]:
    """Every method and direction of the library by name, sorted."""
    found = [entry for module, path in modules() for entry in _entries(module, path)]
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def others_bring_some() -> bool:
    """Whether another package declares a method; nothing is loaded to find out."""
    return bool(entry_points(group=GROUP))


def modules() -> Iterator[tuple[str, Path]]:
    """Names and files of the modules that hold methods; none of them is imported."""
    for info in pkgutil.walk_packages([str(Path(__file__).parent)], "rekindle.methods."):
        if not info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
            found = info.module_finder.find_spec(info.name, None)
            assert found is not None and found.origin is not None
            yield info.name, Path(found.origin)


def _entries(module: str, path: Path) -> Iterator[MethodEntry]:
    file = _read(path)
    for node in file.classes.values():
        facts = {_target(item): item.value for item in node.body if isinstance(item, ast.AnnAssign) and _is_class_variable(item)}
        if "paper" in facts:
            name, paper = (file.value(facts[key]) if key in facts else "" for key in ("name", "paper"))
            options = {
                key: Option(at.value(default), spec.wanted(at.value(hint))) for key, (at, hint, default) in file.fields(node).items()
            }
            doc = inspect.cleandoc(ast.get_docstring(node) or "")
            yield MethodEntry(name or spec.snake(node.name), node.name, module, module.split(".")[2], paper, doc, options)


@dataclass(frozen=True)
class _File:
    """A parsed file: its classes, what it assigns, and from where in rekindle it imports a name."""

    classes: dict[str, ast.ClassDef]
    assigned: dict[str, ast.expr]
    imported: dict[str, str]

    def fields(self, node: ast.ClassDef) -> dict[str, tuple["_File", ast.expr, ast.expr]]:
        """{field: (file, annotation, default)} of a dataclass in order, those of its bases first."""
        found: dict[str, tuple[_File, ast.expr, ast.expr]] = {}
        for base in map(ast.unparse, node.bases):
            home = self.home(base)
            if base in home.classes:
                found |= home.fields(home.classes[base])
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and item.value is not None and not _is_class_variable(item) and _target(item)[0] != "_":
                found[_target(item)] = (self, item.annotation, item.value)
        return found

    def home(self, name: str) -> "_File":
        """The file that defines a name: this one, or the one it is imported from."""
        module = self.imported.get(name, "")
        if not module.startswith("rekindle.methods."):
            return self
        found = importlib.util.find_spec(module)
        assert found is not None and found.origin is not None
        return _read(Path(found.origin))

    def value(self, node: ast.expr | None) -> Any:
        """The value of an expression of literals, annotations, and names for such."""
        assert node is not None
        names = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)} - NAMES.keys() - vars(builtins).keys()
        known = {name: self.home(name).value(self.home(name).assigned[name]) for name in names}
        return eval(compile(ast.Expression(node), "<option>", "eval"), {**NAMES, **known})


NAMES = {**vars(typing), **vars(annotated_types), **vars(spec)}


@cache
def _read(path: Path) -> _File:
    body = ast.parse(path.read_text("utf-8")).body
    assigned = {
        target.id: item.value for item in body if isinstance(item, ast.Assign) for target in item.targets if isinstance(target, ast.Name)
    }
    imported = {alias.name: item.module or "" for item in body if isinstance(item, ast.ImportFrom) for alias in item.names}
    return _File({item.name: item for item in body if isinstance(item, ast.ClassDef)}, assigned, imported)


def _target(item: ast.AnnAssign) -> str:
    return ast.unparse(item.target)


def _is_class_variable(item: ast.AnnAssign) -> bool:
    return ast.unparse(item.annotation).startswith("ClassVar")


def card(name: str, entries: dict[str, MethodEntry]) -> str:
    """The card of a method or direction: what it does, formula, when to use it, its options, and how the papers' code differs.

    One that has no card, such as a method of one's own, shows its docstring.

    Args:
        name: Of a method, a direction, or a variant of one.
        entries: All that there are.

    Raises:
        UserError: If there is no such method.
    """
    base, preset = VARIANTS.get(name, (name, {}))
    check_known("method", name, base, [*entries, *VARIANTS])
    written = files("rekindle.methods").joinpath("cards", f"{base}.md")
    text = written.read_text("utf-8") if written.is_file() else f"# {base}\n\n{entries[base].doc.partition('Args:')[0]}"
    fixed = f"\n`{name}` is `{base}` with {', '.join(f'{option}={value!r}' for option, value in preset.items())}.\n" if preset else ""
    return f"{text.rstrip()}\n{fixed}\n## Options\n\n{_options(entries[base])}"


def _options(entry: MethodEntry) -> str:
    """Each option with its default, what it takes, and what the docstring says of it."""
    section = entry.doc.partition("Args:")[2].partition("Raises:")[0]
    texts = {
        name: " ".join(text.split()) for name, text in re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    }
    lines = [f"- `{name}={option.default!r}` ({option.words}): {texts.get(name, '')}" for name, option in entry.options.items()]
    return "\n".join(lines) or "None."


def check_known(what: str, name: str, base: str, known: Collection[str]) -> None:
    """Refuse a name that there is not.

    Raises:
        UserError: Naming the one that was likely meant, and all.
    """
    if base not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UserError(f"there is no {what} {shown(name)}{hint} Known: {', '.join(sorted(known))}.")
