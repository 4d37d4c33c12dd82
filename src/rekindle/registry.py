"""Finds methods by name and parses recipes such as ``l2_sp(alpha=0.01)+rifle(periods=4)``.

A method or direction is found when its module lies anywhere below `rekindle.methods`: adding one is adding one file.
"""

import ast
import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import rekindle.methods
from rekindle.errors import UserError
from rekindle.method import Direction, Method, snake

if TYPE_CHECKING:
    from rekindle.data.augment import Augment

Kind = TypeVar("Kind")

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rifle_a": ("rifle", {"cycle": "none"}),
    "rifle_b": ("rifle", {"reinitialize": False}),
}


@cache
def methods() -> dict[str, type[Method]]:
    """Every method class by name, sorted."""
    return classes_below(rekindle.methods, Method)


@cache
def directions() -> dict[str, type[Direction]]:
    """Every direction class by name, sorted."""
    return classes_below(rekindle.methods, Direction)


def classes_below(package: ModuleType, base: type[Kind]) -> dict[str, type[Kind]]:
    """Subclasses of `base` by name, sorted, that are defined in modules below a package."""
    found: dict[str, type[Kind]] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name.rpartition(".")[2].startswith("_"):
            continue  # What several of them share is none of them.
        module = importlib.import_module(info.name)
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, base) and item is not base and item.__module__ == info.name:
                found[getattr(item, "name", "") or snake(item.__name__)] = item
    return dict(sorted(found.items()))


def parse(recipe: str) -> list[Method]:
    """Build the methods of a recipe, in order.

    Args:
        recipe: Names joined by ``+``, each with optional arguments in brackets; "none" is the empty recipe.

    Raises:
        UserError: If the text, a name, an option or a value is not allowed; the sentence says what is.
    """
    if recipe.strip() in ("", "none"):
        return []
    asked = f"--method {recipe!r}"
    made = [
        _build(node, asked, "method", methods(), VARIANTS) for node in _terms(_tree(recipe, asked, "l2_sp(alpha=0.01)+rifle(periods=4)"))
    ]
    names = [method.name for method in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{asked} names {', '.join(twice)} more than once; keep one.")
    return made


def parse_direction(text: str) -> Direction:
    """Build one direction, such as ``dtnh`` or ``grod(rho=0.99)``.

    Raises:
        UserError: As `parse`.
    """
    asked = f"--direction {text!r}"
    return _build(_tree(text, asked, "grod(rho=0.99)"), asked, "direction", directions(), {})


def parse_augment(text: str) -> "Augment | None":
    """Build the augmentations of a text such as ``randaugment(magnitude=9)+mixup(alpha=0.2)``; "" and "none" are none.

    Raises:
        UserError: As `parse`.
    """
    if text.strip() in ("", "none"):
        return None
    from rekindle.data.augment import KINDS, Augment

    asked = f"--augment {text!r}"
    made = tuple(
        _build(node, asked, "augmentation", KINDS, {}) for node in _terms(_tree(text, asked, "randaugment(magnitude=9)+mixup(alpha=0.2)"))
    )
    if len({type(part) for part in made}) < len(made):
        raise UserError(f"{asked} names an augmentation more than once; keep one.")
    return Augment(made)


def summaries() -> dict[str, dict[str, Any]]:
    """Family, first line, paper and options with their defaults of every method and direction, by name."""
    found = {}
    kinds: dict[str, type[Method | Direction]] = {**methods(), **directions()}
    for name, kind in kinds.items():
        first = (kind.__doc__ or "").strip().splitlines()[0]
        options = {field.name: field.default for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
        found[name] = {"family": kind.__module__.split(".")[2], "summary": first, "paper": kind.paper, "options": options}
    return found


def card(name: str) -> str:
    """The card of a method or direction: what it does, formula, when to use it, its options, and how the papers' code differs.

    One that has no card yet, such as a method of one's own, shows its docstring.

    Raises:
        UserError: If there is no such method.
    """
    base, preset = VARIANTS.get(name, (name, {}))
    kinds: dict[str, Any] = {**methods(), **directions()}
    _known("method", name, base, [*kinds, *VARIANTS])
    written = files("rekindle.methods").joinpath("cards", f"{base}.md")
    text = written.read_text("utf-8") if written.is_file() else f"# {base}\n\n{(inspect.getdoc(kinds[base]) or '').partition('Args:')[0]}"
    fixed = f"\n`{name}` is `{base}` with {', '.join(f'{option}={value!r}' for option, value in preset.items())}.\n" if preset else ""
    return f"{text.rstrip()}\n{fixed}\n## Options\n\n{_options(kinds[base])}"


def _options(kind: type) -> str:
    """Each option with its default and what the docstring says of it."""
    section = (inspect.getdoc(kind) or "").partition("Args:")[2].partition("Raises:")[0]
    texts = {
        name: " ".join(text.split()) for name, text in re.findall(r"^ {4}(\w+): (.+?)(?=^ {4}\w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    }
    lines = [f"- `{field.name}={field.default!r}`: {texts.get(field.name, '')}" for field in dataclasses.fields(kind) if field.init]
    return "\n".join(lines) or "None."


def unparse(chosen: list[Method]) -> str:
    """The recipe that parses back to equal methods, holding only what differs from a default."""
    return "+".join(describe(method) for method in chosen) or "none"


def describe(method: Method | Direction) -> str:
    """One method or direction as a term of a recipe."""
    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}  # type: ignore[arg-type]
    plain = {field.name: field.default for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    given = [f"{name}={value!r}" for name, value in options.items() if value != plain[name]]
    return method.name + (f"({', '.join(given)})" if given else "")


def _tree(text: str, asked: str, example: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise UserError(f"{asked} cannot be read; write it like {example!r}.") from None


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _build(node: ast.expr, asked: str, what: str, kinds: dict[str, type[Kind]], variants: dict[str, tuple[str, dict[str, Any]]]) -> Kind:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name) or call.args:
        joined = ", joined by '+'" if what != "direction" else ""
        raise UserError(f"{asked}: write each part as name or name(option=value){joined}.")
    name = call.func.id
    base, preset = variants.get(name, (name, {}))
    _known(what, name, base, [*kinds, *variants])
    given = {keyword.arg or "**": _value(keyword, name) for keyword in call.keywords}
    return _construct(kinds[base], name, preset, given)


def _known(what: str, name: str, base: str, known: list[str]) -> None:
    if base not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise UserError(f"there is no {what} {name!r}{hint} Known: {', '.join(sorted(known))}.")


def _construct(kind: type[Kind], name: str, preset: dict[str, Any], given: dict[str, Any]) -> Kind:
    allowed = [field.name for field in dataclasses.fields(kind) if field.init and field.name not in preset]  # type: ignore[arg-type]
    unknown = [option for option in given if option not in allowed]
    if unknown:
        listed = f"has {', '.join(allowed)}" if allowed else "has no options"
        raise UserError(f"{name} has no option {unknown[0]!r}; it {listed}.")
    try:
        return kind(**preset, **given)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None


def _value(keyword: ast.keyword, name: str) -> Any:
    try:
        return ast.literal_eval(keyword.value)
    except ValueError:
        text = ast.unparse(keyword.value)
        raise UserError(
            f"{name}: the value {text} of {keyword.arg} is not a number, a text in quotes, True, False, None or a tuple of them."
        ) from None
