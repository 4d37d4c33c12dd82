"""Finds methods by name and parses recipes such as ``l2_sp(alpha=0.01)+rifle(periods=4)``.

A method or direction is found when its module lies anywhere below `rekindle.methods`: adding one is adding one file.
"""

import ast
import dataclasses
import difflib
import importlib
import pkgutil
import warnings
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import rekindle.methods
from rekindle.errors import UserError, number_of, shorter, shown
from rekindle.method import Direction, Method
from rekindle.methods._catalog import VARIANTS, check_known, library, others_bring_some
from rekindle.methods._plugins import plugins
from rekindle.spec import RunSpec, snake

if TYPE_CHECKING:
    from rekindle.data.augment import Augment

Kind = TypeVar("Kind")
MOST_LETTERS, MOST_LEVELS = 5000, 60  # Of a recipe: a part of it is a level, and so is a bracket.
OF_0_1: dict[str, dict[str, Any]] = {"dtnh": {"weight_decay": "inside"}, "grod": {"weight_decay": "inside"}}
"""What rekindle 0.1 did where it had no option: {name: options}."""


@cache
def methods() -> dict[str, type[Method]]:
    """Every method class by name, sorted: the library's, then those of other packages.

    Returns:
        Classes by the name that a recipe gives them.
    """
    return _all(Method)


@cache
def directions() -> dict[str, type[Direction]]:
    """Every direction class by name, sorted likewise.

    Returns:
        Classes by the name that a recipe gives them.
    """
    return _all(Direction)


def _all(base: type[Kind]) -> dict[str, type[Kind]]:
    others = plugins(frozenset(library())).kinds if others_bring_some() else {}
    return {**classes_below(rekindle.methods, base), **{name: kind for name, kind in others.items() if issubclass(kind, base)}}


def _of_the_caller(name: str) -> dict[str, Any]:
    """A method class of that name that the running program has defined for itself."""
    waiting = list(Method.__subclasses__())
    while waiting:
        kind = waiting.pop()
        if kind.name == name and not kind.__module__.rpartition(".")[2].startswith("_"):
            return {name: kind}
        waiting += kind.__subclasses__()
    return {}


def classes_below(package: ModuleType, base: type[Kind]) -> dict[str, type[Kind]]:
    """Subclasses of `base` by name, sorted, that are defined in modules below a package.

    Returns:
        Classes by name.
    """
    found: dict[str, type[Kind]] = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name.rpartition(".")[2].startswith("_"):
            continue  # What several of them share is none of them.
        module = importlib.import_module(info.name)
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, base) and item is not base and item.__module__ == info.name:
                found[getattr(item, "name", "") or snake(item.__name__)] = item
    return dict(sorted(found.items()))


def parse(recipe: str, defaults: str = RunSpec.defaults) -> list[Method]:
    """Build the methods of a recipe, in order.

    Args:
        recipe: Names joined by ``+``, each with optional arguments in brackets; "none" is the empty recipe.
        defaults: Whose reading, as in `RunSpec`: with "0.1" a preset overrides the options given beside it, and a direction takes plain weight decay for
            a regulariser, as then.

    Returns:
        One object a term, with its options set and checked.

    Raises:
        UserError: If the text, a name, an option or a value is not allowed; the sentence says what is.

    Examples:
        >>> [method.name for method in parse("l2_sp(alpha=0.1)+dropout")]
        ['l2_sp', 'dropout']
    """
    if recipe.strip() in ("", "none"):
        return []
    asked = f"--method {shown(recipe)}"
    made = [
        _build(node, asked, "method", methods(), VARIANTS, defaults)
        for node in _terms(_tree(recipe, asked, "l2_sp(alpha=0.01)+rifle(periods=4)"))
    ]
    names = [method.name for method in made]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{asked} names {', '.join(twice)} more than once; keep one.")
    return made


def parse_direction(text: str, defaults: str = RunSpec.defaults) -> Direction:
    """Build one direction, such as ``dtnh`` or ``grod(rho=0.99)``; `defaults` as in `parse`.

    Returns:
        The direction, with its options set and checked.

    Raises:
        UserError: As `parse`.

    Examples:
        >>> parse_direction("grod(rho=0.99)").rho
        0.99
    """
    asked = f"--direction {shown(text)}"
    return _build(_tree(text, asked, "grod(rho=0.99)"), asked, "direction", directions(), {}, defaults)


def parse_augment(text: str) -> "Augment | None":
    """Build the augmentations of a text such as ``randaugment(magnitude=9)+mixup(alpha=0.2)``; "" and "none" are none.

    Returns:
        What to add to crop and mirror, or None.

    Raises:
        UserError: As `parse`.
    """
    if text.strip() in ("", "none"):
        return None
    from rekindle.data.augment import KINDS, Augment

    asked = f"--augment {shown(text)}"
    made = tuple(
        _build(node, asked, "augmentation", KINDS, {}) for node in _terms(_tree(text, asked, "randaugment(magnitude=9)+mixup(alpha=0.2)"))
    )
    if len({type(part) for part in made}) < len(made):
        raise UserError(f"{asked} names an augmentation more than once; keep one.")
    return Augment(made)


def unparse(chosen: list[Method]) -> str:
    """The recipe that parses back to equal methods, holding only what differs from a default.

    Returns:
        A text; "none" for no method.

    Examples:
        >>> unparse(parse("l2_sp(alpha=0.1)+bss"))
        'l2_sp(alpha=0.1)+bss'
    """
    return "+".join(describe(method) for method in chosen) or "none"


def describe(method: Method | Direction) -> str:
    """One method or direction as a term of a recipe.

    Returns:
        Such as "rifle" or "rifle(periods=3)".

    Examples:
        >>> describe(parse_direction("dtnh")), describe(parse("l2_sp(alpha=0.1, beta=0.0001)")[0])
        ('dtnh', 'l2_sp(alpha=0.1)')
    """
    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method) if field.init}  # type: ignore[arg-type]
    plain = {field.name: field.default for field in dataclasses.fields(method)}  # type: ignore[arg-type]
    preset = method.presets.get(str(options.get("preset")), {})
    given = [f"{name}={value!r}" for name, value in options.items() if value != plain[name] or value != preset.get(name, value)]
    return method.name + (f"({', '.join(given)})" if given else "")


def _tree(text: str, asked: str, example: str) -> ast.expr:
    """The text's syntax tree, flat enough for what walks it."""
    if len(text) > MOST_LETTERS:
        raise UserError(
            f"{asked} has {number_of(len(text), 'letter')}, more than the {MOST_LETTERS} that are allowed; write it like {example!r}."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's advice on the text is not for who typed a recipe.
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # The last two where brackets or signs are nested too deep for Python.
        raise UserError(f"{asked} cannot be read; write it like {example!r}.") from None
    level: list[ast.AST] = [tree]
    for _ in range(MOST_LEVELS):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise UserError(f"{asked} has too many parts, or brackets that are nested too deep; write it like {example!r}.")
    return tree


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _build(
    node: ast.expr, asked: str, what: str, kinds: dict[str, type[Kind]], variants: dict[str, tuple[str, dict[str, Any]]],
    defaults: str = RunSpec.defaults,
) -> Kind:  # fmt: skip
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name) or call.args:
        joined = ", joined by '+'" if what != "direction" else ""
        raise UserError(f"{asked}: write each part as name or name(option=value){joined}.")
    name = call.func.id
    kinds = {**(_of_the_caller(name) if what == "method" else {}), **kinds}
    if name not in kinds and others_bring_some() and name in plugins(frozenset(library())).broken:
        raise UserError(f"{asked}: {plugins(frozenset(library())).broken[name]}.")
    base, preset = variants.get(name, (name, {}))
    check_known(what, name, base, [*kinds, *variants])
    given = {keyword.arg or "**": _value(keyword, name) for keyword in call.keywords}
    return _construct(kinds[base], name, preset, given, defaults)


def _construct(kind: type[Kind], name: str, preset: dict[str, Any], given: dict[str, Any], defaults: str) -> Kind:
    allowed = [field.name for field in dataclasses.fields(kind) if field.init and field.name not in preset]  # type: ignore[arg-type]
    unknown = [option for option in given if option not in allowed]
    if unknown:
        listed = f"has {', '.join(allowed)}" if allowed else "has no options"
        near = difflib.get_close_matches(unknown[0], allowed, n=1)
        hint = f"did you mean {near[0]}? It" if near else "it"
        raise UserError(f"{name} has no option {shown(unknown[0])}; {hint} {listed}.")
    options = {**preset, **given}
    if defaults == "0.1":
        options = {**OF_0_1.get(name, {}), **options}
        overridden = getattr(kind, "presets", {}).get(str(given.get("preset")), {})
        options = {option: value for option, value in options.items() if option not in overridden}
    try:
        return kind(**options)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None


def _value(keyword: ast.keyword, name: str) -> Any:
    try:
        return ast.literal_eval(keyword.value)
    except (ValueError, TypeError):  # TypeError from a set of lists and the like.
        text = shorter(ast.unparse(keyword.value))
        raise UserError(
            f"{name}: the value {text} of {keyword.arg} is not a number, a text in quotes, True, False, None or a tuple of them."
        ) from None
