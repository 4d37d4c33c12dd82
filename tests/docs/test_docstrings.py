"""Docstrings of the package: public functions say what they return, arguments are those of the signature, and examples give what they show."""

import ast
import doctest
import importlib
import re
import warnings
from pathlib import Path

import pytest

from tests.docs.docstrings import SOURCE, Found, functions

FOUND = functions()
SAYING = [found for found in FOUND if found.gives_something]
WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if re.search(r">>> (?!.*\+SKIP)", path.read_text("utf-8")))


def place(found: Found) -> str:
    return f"{found.path.relative_to(SOURCE).as_posix()}:{found.name}"


def module_of(path: Path) -> str:
    return ".".join(["rekindle", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def exported() -> set[str]:
    """Names that `rekindle`, `rekindle.data`, `rekindle.models` and `rekindle.tuner` offer."""
    words: set[str] = set()
    for room in ("__init__.pyi", "data/__init__.pyi", "models/__init__.py"):
        tree = ast.parse((SOURCE / room).read_text("utf-8"))
        words |= {name.asname or name.name for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    return words | {"Tuner", "head_rate", "read_head_lr"}


OFFERED = [
    found
    for found in FOUND
    if found.name in exported() or (found.name.partition(".")[0] in {"Tuner", "Run", "Dataset"} and "." in found.name)
]


def parameters(found: Found) -> list[str]:
    arguments = found.node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def described(found: Found) -> list[str]:
    """The names below "Args:"."""
    section = re.search(r"\nArgs:\n((?:    .*\n?|\n)*)", found.doc + "\n")
    return re.findall(r"^    \**(\w+):", section[1], re.MULTILINE) if section else []


def test_four_in_five_say_what_they_return() -> None:
    silent = [place(found) for found in SAYING if not found.returns]
    assert len(SAYING) > 600
    assert 1 - len(silent) / len(SAYING) >= 0.8, silent


def test_what_is_offered_says_what_it_returns() -> None:
    assert [place(found) for found in OFFERED if found.gives_something and not found.returns] == []
    assert len(OFFERED) > 40


def test_what_is_offered_describes_its_arguments() -> None:
    """A function of two or more of them; a single one may stand in the first sentence."""
    assert [place(found) for found in OFFERED if len(parameters(found)) > 1 and set(parameters(found)) - set(described(found))] == []


def test_arguments_are_those_of_the_signature() -> None:
    wrong = {}
    for found in FOUND:
        taken = {*parameters(found), *(part.arg for part in (found.node.args.vararg, found.node.args.kwarg) if part)}
        if unknown := set(described(found)) - taken:
            wrong[place(found)] = unknown
    assert wrong == {}


def test_an_argument_that_is_gone_is_noticed() -> None:
    [node] = ast.parse('def f(a: int) -> int:\n    """Add.\n\n    Args:\n        b: Gone.\n\n    Returns:\n        A sum.\n    """').body
    assert isinstance(node, ast.FunctionDef)
    found = Found(SOURCE, "f", node)
    assert (described(found), parameters(found), found.returns, found.gives_something) == (["b"], ["a"], True, True)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_of)
def test_examples_give_what_they_show(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        failed, tried = doctest.testmod(importlib.import_module(module_of(path)), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 0 and failed == 0


def test_forty_functions_have_an_example() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    tests = [test for path in WITH_EXAMPLES for test in finder.find(importlib.import_module(module_of(path))) if test.examples]
    assert len(tests) >= 40
