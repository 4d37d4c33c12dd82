"""A study's YAML file, read and checked; every mistake is one sentence that names the key and what is allowed there.

    name: clothes                       # of the study
    baseline: Original                  # the method that the others are compared with; default: the first
    seeds: 5                            # 0 to 4, or a list
    sizes: [30, 60]                     # training pictures a class; 0 takes all, which is the default
    base: {model: resnet18, epochs: 40, lr: 0.01}           # settings of every run: options of rekindle fit
    regularizers: {L2: l2, L2-SP: l2_sp}                    # what stands for {regularizer} in a recipe; may be left out
    tasks: {clothes: {data: clothes}}                       # settings of one task, above those of base
    shared: {lr: [0.003, 0.01]}         # values that every method chooses among; a task may have its own `shared`
    methods:
      Original: "{regularizer}"
      Dropout: {method: "{regularizer}+dropout(p={p})", grid: {p: [0.1, 0.2, 0.5]}}    # above those of the task
    selection: {seeds: 3}               # how one value of each grid is chosen, on the validation split
    blocks: [{sizes: [30]}, {sizes: [60], methods: [Original], seeds: 3}]              # parts of the product, one after the other
    small: {base: ..., tasks: ...}      # what replaces the keys of the same name with --scale small

Grids of values may name options in the recipe's braces, or settings such as lr. In place of a list of values stands a range,
{low: 0.001, high: 0.1}, with log: false where equal differences count, and selection.trials says how many candidates Optuna proposes.
"""

import copy
import dataclasses
import itertools
import math
import string
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rekindle.errors import UserError, number_of, shorter, shown
from rekindle.files import read_yaml
from rekindle.spec import AUTO, NONE_WORDS, RunSpec, fits, hints, option_words
from rekindle.study.grid import FIRST_SELECTION_SEED, Grid, Group, Selection, Setting, by_setting
from rekindle.study.search import Range, Search

KEYS = ("name", "title", "baseline", "seeds", "sizes", "base", "regularizers", "tasks", "shared", "methods", "selection", "blocks")
REQUIRED = ("name", "tasks", "methods")
SELECTION = ("seeds", "settings", "equal_budgets", "test_selected", "trials")
RANGE = ("low", "high", "log")
BLOCK = ("methods", "regularizers", "tasks", "sizes", "seeds")
SETTINGS = tuple(field.name for field in dataclasses.fields(RunSpec) if field.name not in ("seed", "test", "devices"))
NOT_MINE = ("per_class",)
PLAIN_WEIGHTS = ("default", "none")
MOST_RUNS, MOST_SEEDS_A_SETTING, MOST_NAME_BYTES, MOST_KEY_LETTERS = 100_000, 10_000, 100, 200


def load(path: Path | str, *, scale: str = "full", data_root: str | None = None, weights_root: str | None = None) -> Grid:
    """Read a study's file.

    Args:
        path: The YAML file.
        scale: "full", or "small" for the keys under `small`.
        data_root: Folder in which a task's `data` is looked for first.
        weights_root: The same for files of weights.

    Returns:
        The checked grid.

    Raises:
        UserError: In one sentence that names the key and what is allowed there.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no file {path}; name a study's YAML file: rekindle study run GRID.yaml")
    raw = read_yaml(path)
    try:
        return from_dict(scaled(raw, scale), data_root, weights_root)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def scaled(raw: Any, scale: str) -> dict[str, Any]:
    """The mapping at a scale: with "small", the keys under `small` replace those of the same name.

    Returns:
        A new mapping, without the key `small`.
    """
    _mapping(raw, "the file")
    plain = {key: value for key, value in raw.items() if key != "small"}
    if scale == "full":
        return plain
    if scale != "small":
        raise UserError(f"--scale must be full or small, found {shown(scale)}.")
    if "small" not in raw:
        raise UserError("there is no key 'small', so --scale small has nothing to take; leave --scale out.")
    _keys(_mapping(raw["small"], "small"), KEYS, "small")
    return {**plain, **raw["small"]}


def from_dict(raw: Any, data_root: str | None = None, weights_root: str | None = None) -> Grid:
    """Check a study's mapping and make its groups; see `load`.

    Returns:
        The checked grid.
    """
    _keys(_mapping(raw, "the file"), KEYS, "the file")
    missing = [key for key in REQUIRED if not raw.get(key)]
    if missing:
        raise UserError(f"the key {missing[0]!r} is missing or empty; a study needs {', '.join(REQUIRED)}.")
    raw = _rooted(copy.deepcopy(raw), data_root, weights_root)
    name = _text(raw["name"], "name")
    if len(name.encode("utf-8", "replace")) > MOST_NAME_BYTES:
        raise UserError(f"name names a folder too, so it may have at most {MOST_NAME_BYTES} bytes, found {shown(name)}.")
    if not all(letter.isalnum() or letter in "_-." for letter in name) or name.startswith("."):
        raise UserError(f"name names a folder too, so it may hold letters, digits, '_', '-' and '.'; found {shown(name)}.")
    methods, tasks = _mapping(raw["methods"], "methods"), _mapping(raw["tasks"], "tasks")
    baseline = _text(raw.get("baseline", next(iter(methods))), "baseline")
    if baseline not in methods:
        raise UserError(f"baseline must be one of the methods {', '.join(methods)}, found {shown(baseline)}.")
    groups = tuple(_groups(raw, _selection(raw.get("selection", {}))))
    _equal_budgets(groups)
    published = {
        kind: {key: str(entry["published"]) for key, entry in entries.items() if isinstance(entry, dict) and "published" in entry}
        for kind, entries in (("methods", methods), ("tasks", tasks))
    }
    return Grid(raw, name, _text(raw.get("title", name), "title"), baseline, tuple(methods), published, groups)


def check_recipes(grid: Grid) -> None:
    """Refuse recipes and directions that do not exist, and a network left open, before anything is run.

    Slower than `load`: it looks at every method.
    """
    from rekindle.registry import parse, parse_direction

    seen = set()
    for group in grid.groups:
        for settings in group.candidates.values():
            recipe = tuple(settings.get(name, getattr(RunSpec, name)) for name in ("method", "direction", "defaults"))
            if settings.get("model", RunSpec.model) == AUTO and recipe[2] != "0.1":
                raise UserError("a study compares methods on one network; name it in base, such as base: {model: tf_efficientnet_lite0}.")
            if recipe in seen:
                continue
            seen.add(recipe)
            try:
                parse(recipe[0], recipe[2])
                parse_direction(recipe[1], recipe[2])
            except UserError as error:
                raise UserError(f"methods.{group.method}: {error}") from None


def _groups(raw: dict[str, Any], selection: Selection) -> list[Group]:
    """The product of each block, without repetition; a group of two blocks takes the seeds of both."""
    regularizers = _regularizers(raw)
    base = _settings(raw.get("base", {}), "base")
    tasks = {name: _task(name, entry) for name, entry in raw["tasks"].items()}
    shared = _shared(raw)
    methods = {name: _method(name, entry, regularizers) for name, entry in raw["methods"].items()}
    _check_shared(shared, methods)
    blocks = _blocks(raw, regularizers)
    _check_size(blocks, methods, shared, selection)
    places: dict[tuple[Setting, str], dict[int, int]] = {}
    for number, block in enumerate(blocks):
        for task, size, regularizer, method in itertools.product(block["tasks"], block["sizes"], block["regularizers"], block["methods"]):
            numbers = places.setdefault((Setting(regularizer, task, size), method), {})
            for seed in block["seeds"]:
                numbers.setdefault(seed, number)
    made = []
    for (setting, method), numbers in places.items():
        both = set(numbers) & set(selection.seeds)
        common = {**base, **tasks[setting.task], "per_class": setting.size or None}
        maker = _Maker(method, methods[method]["settings"], regularizers.get(setting.regularizer, ""), common)
        space = {key: _space(value, key) for key, value in {**shared[setting.task], **methods[method]["grid"]}.items()}
        made.append(_group(setting, method, maker, space, numbers, selection))
        if both and made[-1].searches:
            raise UserError(f"selection.seeds must differ from seeds, so that the final runs are fresh; both have {min(both)}.")
        try:
            _ = made[-1].final_cells
            _check_selection(made[-1])
        except UserError as error:
            raise UserError(f"method {method} in task {setting.task}: {error}") from None
    return made


def _check_size(
    blocks: list[dict[str, Any]], methods: dict[str, dict[str, Any]], shared: dict[str, dict[str, Any]], selection: Selection
) -> None:
    """Refuse a product that nobody will run, by its counts alone: before anything of its size is made."""
    runs = 0
    for block in blocks:
        settings = math.prod(len(block[key]) for key in ("sizes", "regularizers"))
        for task, name in itertools.product(block["tasks"], block["methods"]):
            space = {**shared[task], **methods[name]["grid"]}.values()
            ranges = any(isinstance(values, dict) for values in space)
            candidates = selection.trials if ranges else math.prod(len(values) for values in space)
            runs += settings * candidates * (len(block["seeds"]) + len(selection.seeds) * (candidates > 1))
    if runs > MOST_RUNS:
        raise UserError(
            f"the grid asks for {shown(runs)} runs, more than the {MOST_RUNS} of one study; give fewer seeds, sizes, tasks, methods or values."
        )


def _check_selection(group: Group) -> None:
    """Refuse a choice among candidates that no validation pictures can decide."""
    if any(cell.spec.val_fraction == 0 for cell in group.selection_cells):
        raise UserError(
            "its values are chosen on validation, and val_fraction is 0; give selection.settings a val_fraction above 0, such as 0.2."
        )


def _blocks(raw: dict[str, Any], regularizers: dict[str, str]) -> list[dict[str, Any]]:
    whole = {
        "methods": list(raw["methods"]), "regularizers": list(regularizers), "tasks": list(raw["tasks"]),
        "sizes": _numbers(raw.get("sizes", [0]), "sizes"), "seeds": _seeds(raw.get("seeds", 5), "seeds"),
    }  # fmt: skip
    found = raw.get("blocks", [{}])
    if not isinstance(found, list) or not found:
        raise UserError(f"blocks must be a list of mappings with keys among {', '.join(BLOCK)}, found {shown(found)}.")
    blocks = []
    for number, block in enumerate(found):
        where = f"blocks[{number}]"
        _keys(_mapping(block, where), BLOCK, where)
        part = dict(whole)
        for key, value in block.items():
            if key == "seeds":
                part[key] = _seeds(value, f"{where}.seeds")
            elif key == "sizes":
                part[key] = _numbers(value, f"{where}.sizes")
            else:
                part[key] = _among(value, whole[key], f"{where}.{key}")
        blocks.append(part)
    return blocks


def _regularizers(raw: dict[str, Any]) -> dict[str, str]:
    found = _mapping(raw.get("regularizers", {"": ""}), "regularizers")
    if not found:
        raise UserError(
            "regularizers is empty, so there is nothing to run; leave the key out, or give it a name and a recipe, such as L2: l2."
        )
    return {name: _text(recipe, f"regularizers.{name}") for name, recipe in found.items()}


def _task(name: str, entry: Any) -> dict[str, Any]:
    where = f"tasks.{name}"
    entry = {"data": entry} if isinstance(entry, str) else _mapping(entry, where)
    if "data" not in entry:
        raise UserError(f"{where} needs the key 'data', the folder with the photographs.")
    return _settings({key: value for key, value in entry.items() if key not in ("published", "shared")}, where)


def _shared(raw: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What every method chooses among, by task: a task's own values replace those of the whole file."""
    common = raw.get("shared", {})
    found = {}
    for name, entry in raw["tasks"].items():
        own = entry.get("shared") if isinstance(entry, dict) else None
        grid, where = (common, "shared") if own is None else (own, f"tasks.{name}.shared")
        for key, values in _mapping(grid, where).items():
            _check_values(values, f"{where}.{key}")
            if key not in SETTINGS or key in NOT_MINE:
                raise UserError(f"{where}.{key} is no setting that methods can share; settings are {', '.join(SETTINGS)}.")
        found[name] = grid
    return found


def _check_shared(shared: dict[str, dict[str, Any]], methods: dict[str, dict[str, Any]]) -> None:
    """Refuse a method that sets for itself what all are to choose among."""
    for grid, (name, method) in itertools.product(shared.values(), methods.items()):
        both = [key for key in grid if key in method["grid"] or key in method["settings"]]
        if both:
            raise UserError(
                f"methods.{name} gives {both[0]} a value of its own, and shared.{both[0]} gives every method the same; leave one of the two out."
            )


def _check_values(values: Any, where: str) -> None:
    if isinstance(values, dict):
        _check_range(values, where)
    elif not isinstance(values, list) or not values:
        raise UserError(f"{where} must be a list of values, or a range {{low: ..., high: ...}}, found {shown(values)}.")


def _check_range(values: dict[str, Any], where: str) -> None:
    _keys(_mapping(values, where), RANGE, where)
    low, high = (_maybe_number(values.get(key)) for key in ("low", "high"))
    for key, number in (("low", low), ("high", high)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise UserError(f"{where}.{key} must be a number, found {shown(values.get(key))}.")
    if not isinstance(values.get("log", True), bool):
        raise UserError(f"{where}.log must be true or false, found {shown(values['log'])}.")
    if low >= high:
        raise UserError(f"{where} must go from low to a larger high, found {shown(low)} and {shown(high)}.")
    if low <= 0 and values.get("log", True):
        raise UserError(f"{where}.low must be above 0 where equal factors count, found {shown(low)}; give a larger one, or log: false.")


def _space(values: Any, key: str) -> Range | list[Any]:
    """What one name is chosen from: a range that `_check_values` let pass, or a list."""
    if not isinstance(values, dict):
        return [_maybe_number(value) for value in values]
    low, high = (_maybe_number(values[name]) for name in ("low", "high"))
    if key in SETTINGS and fits(0.5, hints(RunSpec)[key]):
        low, high = float(low), float(high)
    return Range(low, high, values.get("log", True))


def _method(name: str, entry: Any, regularizers: dict[str, str]) -> dict[str, Any]:
    where = f"methods.{name}"
    entry = {"method": entry} if isinstance(entry, str) else dict(_mapping(entry, where))
    if "method" not in entry:
        raise UserError(f"{where} needs the key 'method', its recipe, such as 'l2+rifle(periods=4)'.")
    grid = _mapping(entry.pop("grid", {}), f"{where}.grid")
    entry.pop("published", None)
    settings = _settings(entry, where)
    known = {*_placeholders(settings, where), *grid}
    for key, values in grid.items():
        _check_values(values, f"{where}.grid.{key}")
        if key not in _placeholders(settings, where) and key not in SETTINGS:
            raise UserError(f"{where}.grid.{key} is neither in braces in the recipe nor a setting; settings are {', '.join(SETTINGS)}.")
    unknown = known - set(grid) - {"regularizer"}
    if unknown:
        raise UserError(
            f"{where}: the recipe asks for {{{shorter(min(unknown))}}}, which {where}.grid does not give; it may also use {{regularizer}}."
        )
    if "regularizer" in known and list(regularizers) == [""]:
        raise UserError(f"{where}: the recipe asks for {{regularizer}}, but the grid has no key 'regularizers'.")
    return {"settings": settings, "grid": grid}


def _placeholders(settings: dict[str, Any], where: str) -> list[str]:
    found = []
    for key in ("method", "direction"):
        try:
            parts = list(string.Formatter().parse(settings.get(key, "")))
        except ValueError as error:
            raise UserError(f"{where}: the recipe {shown(settings[key])} has a brace without its partner ({error}).") from None
        for _, name, form, conversion in parts:
            if name is None:
                continue
            if not name.isidentifier() or form or conversion:
                raise UserError(
                    f"{where}: in the recipe {shown(settings[key])}, braces hold a name of letters and digits alone, such as {{p}}."
                )
            found.append(name)
    return found


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes the settings of a run from the values that a method chooses.

    Attributes:
        name: Of the method.
        settings: Of the method, with braces in its recipes.
        regularizer: What stands for {regularizer}.
        common: Settings of the base and the task.
    """

    name: str
    settings: dict[str, Any]
    regularizer: str
    common: dict[str, Any]

    def __call__(self, chosen: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The candidate's text, and its settings."""
        filled = {"regularizer": self.regularizer, **{key: repr(value) for key, value in chosen.items()}}
        settings = {key: value.format_map(filled) if key in ("method", "direction") else value for key, value in self.settings.items()}
        own = {key: value for key, value in chosen.items() if key in SETTINGS}
        settings |= _settings(own, f"the values that {self.name} chooses among")
        return ", ".join(f"{key}={value}" for key, value in chosen.items()), {**self.common, **settings}


def _group(
    setting: Setting, method: str, maker: _Maker, space: Mapping[str, Range | list[Any]], numbers: dict[int, int], selection: Selection
) -> Group:
    """With each combination of the given values, or with the first candidate of a search."""
    if any(isinstance(values, Range) for values in space.values()):
        if not selection.trials:
            raise UserError(f"method {method} chooses from a range, so selection.trials must say among how many values, such as trials: 8.")
        for end in ("low", "high"):  # A value that no run takes is told of before anything is run.
            maker({key: getattr(values, end) if isinstance(values, Range) else values[0] for key, values in space.items()})
        search = Search(space, selection.trials, maker)
        return Group(setting, method, dict([maker(search.start(0))]), numbers, selection, search)
    given: list[Sequence[Any]] = [values for values in space.values() if not isinstance(values, Range)]
    candidates = dict(maker(dict(zip(space, values, strict=True))) for values in itertools.product(*given))
    return Group(setting, method, candidates, numbers, selection)


def _selection(raw: Any) -> Selection:
    _keys(_mapping(raw, "selection"), SELECTION, "selection")
    options: dict[str, Any] = {}
    if "seeds" in raw:
        options["seeds"] = _seeds(raw["seeds"], "selection.seeds", FIRST_SELECTION_SEED)
    if "settings" in raw:
        options["settings"] = _settings(raw["settings"], "selection.settings")
    if "trials" in raw:
        [options["trials"]] = _numbers([raw["trials"]], "selection.trials")
        if options["trials"] < 2:
            raise UserError(f"selection.trials must be at least 2, found {shown(raw['trials'])}.")
    for key in ("equal_budgets", "test_selected"):
        if key in raw:
            if not isinstance(raw[key], bool):
                raise UserError(f"selection.{key} must be true or false, found {shown(raw[key])}.")
            options[key] = raw[key]
    return Selection(**options)


def _equal_budgets(groups: tuple[Group, ...]) -> None:
    """Refuse methods that choose among more candidates than others do in the same setting."""
    if not groups[0].selection.equal_budgets:
        return
    for rivals in by_setting(groups).values():
        counts = {group.method: group.budget for group in rivals}
        (few, least), (many, most) = min(counts.items(), key=lambda item: item[1]), max(counts.items(), key=lambda item: item[1])
        if least < most:
            raise UserError(
                f"method {few} has {number_of(least, 'candidate')} but {many} has {most}, which favours {many}; "
                "give every method as many, or set selection.equal_budgets to false, and the report says so."
            )


def _settings(raw: Any, where: str) -> dict[str, Any]:
    """Settings of RunSpec with values of the right type."""
    _keys(_mapping(raw, where), SETTINGS, where)
    refused = [key for key in raw if key in NOT_MINE]
    if refused:
        raise UserError(f"{where}.{refused[0]}: the numbers of pictures a class stand under the key 'sizes'.")
    return {key: _typed(value, key, f"{where}.{key}") for key, value in raw.items()}


def _typed(value: Any, name: str, where: str) -> Any:
    """A value as `RunSpec` takes it: YAML may give a number for a text that looks like one, and the other way round."""
    hint = hints(RunSpec)[name]
    number = _maybe_number(value)
    whole = int(number) if isinstance(number, float) and number.is_integer() else number
    for found in (value, whole, number, *([str(value)] if typing.get_origin(hint) is Literal else [])):
        if (name in NONE_WORDS and found == NONE_WORDS[name]) or fits(found, hint):
            return float(found) if type(found) is int and fits(0.5, hint) else found
    raise UserError(f"{where} must be {option_words(name)}, found {shown(value)}.")


def _maybe_number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for a text; a person means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _seeds(value: Any, where: str, first: int = 0) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_SEEDS_A_SETTING:
            raise UserError(
                f"{where} must be a number of seeds, at least 1 and at most {MOST_SEEDS_A_SETTING}, or a list of them, found {shown(value)}."
            )
        return tuple(range(first, first + value))
    return tuple(_numbers(value, where))


def _numbers(value: Any, where: str) -> list[int]:
    value = [value] if isinstance(value, int) else value
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value)
    ):
        raise UserError(f"{where} must be a list of whole numbers from 0 on, found {shown(value)}.")
    return list(dict.fromkeys(value))


def _among(value: Any, allowed: Sequence[str], where: str) -> list[str]:
    value = [value] if isinstance(value, str) else value
    wrong = [item for item in value if item not in allowed] if isinstance(value, list) else [value]
    if wrong or not value:
        raise UserError(f"{where} must be a list of names among {', '.join(allowed)}, found {shown(wrong[0] if wrong else value)}.")
    return list(dict.fromkeys(value))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a mapping (key: value), found {shown(value)}.")
    wrong = [key for key in value if not isinstance(key, str)]
    if wrong:
        raise UserError(f"{where}: the key {shown(wrong[0])} is no text; put it in quotes.")
    long = [key for key in value if len(key) > MOST_KEY_LETTERS]
    if long:
        raise UserError(f"{where}: the key {shown(long[0])} has more than {MOST_KEY_LETTERS} letters; give it a shorter one.")
    return value


def _keys(found: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    wrong = [key for key in found if key not in allowed]
    if wrong:
        raise UserError(f"{where} has the unknown key {shown(wrong[0])}; allowed are {', '.join(allowed)}.")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} must be a text, found {shown(value)}.")
    return value


def _rooted(raw: dict[str, Any], data_root: str | None, weights_root: str | None) -> dict[str, Any]:
    """Put the roots before the paths that exist there; other names, such as those of known data sets, stay as they are."""
    if isinstance(raw.get("tasks"), dict):
        raw["tasks"] = {name: {"data": entry} if isinstance(entry, str) else entry for name, entry in raw["tasks"].items()}
    for entry in [raw.get("base"), *_values(raw.get("tasks")), *_values(raw.get("methods"))]:
        for key, root in (("data", data_root), ("source_data", data_root), ("exclude", data_root), ("weights", weights_root)):
            value = entry.get(key) if isinstance(entry, dict) else None
            if root and isinstance(value, str) and value not in PLAIN_WEIGHTS and (Path(root) / value).exists():
                entry[key] = str(Path(root) / value)
    return raw


def _values(entries: Any) -> list[Any]:
    return list(entries.values()) if isinstance(entries, dict) else []
