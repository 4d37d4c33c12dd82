"""Thousands of mutated texts: each recipe and each grid is read, or refused in one sentence. A seed gives the same texts again."""

import copy
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rekindle.errors import UserError
from rekindle.oracle.study import load_oracle
from rekindle.registry import parse, parse_augment, parse_direction
from rekindle.study.grid_file import check_recipes, load

SLOW = 5.0  # Seconds of processor time; what reads a short text in more than that does so in more steps than it has letters.
LONGEST = 4000  # Letters of a sentence: some list all that is known.
RECIPES = (
    "l2", "l2+rifle(periods=2)", "l2_sp(alpha=0.01, beta=0.1)+rifle(periods=4, when='fitted')", "delta(alpha=0.1)+dropout(p=0.2)",
    "layer_decay(decay=0.8)+freeze_batchnorm", "source_classifier(hidden=(64, 32))+bss(k=1)", "none",
)  # fmt: skip
DIRECTIONS = ("plain_sum", "dtnh", "grod(rho=0.99)", "dtnh(granularity='layer')")
AUGMENTS = ("randaugment(magnitude=9)+mixup(alpha=0.2)", "color_jitter(hue=0.1)+random_erasing", "cutmix")
PIECES = (
    "(", ")", "[", "]", "{", "}", "'", '"', ",", "=", "+", "-", "*", "**", ":", "#", "\\", "\n", "\t", "\0", ".", "!", "&a ", "*a", "<<: ", "? ", "- ",
    "\u00e9", "\ud800", "\U0001f525", "\u202e", "0", "1e999", "1e-999", "nan", "inf", "9" * 30, "9" * 400, "9" * 5000, "0x1f", "1_0", "1j", "None", "True",
    "b'x'", "f'{1}'", "lambda: 0", "__import__('os')", "{p!r:>99999999999}", "{p.x}", "{p[0]}", "(" * 150, "-" * 3000, "l2+" * 2000, "[" * 300, "'" * 3,
    "2020-99-99", "!!python/object:os.system x", "!!timestamp x", "!!int x", "=", "null", "~", ".inf", "1:60:60", "|\n", ">\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 10**400, 0.5, 1e300, float("nan"), float("inf"), "", "x", "nan", "\ud800", "{p}", "{", [], {}, [[]], [{}],
    [None], {"a": 1}, {1: 2}, [1, 1], list(range(300)), "9" * 5000, "l2" * 3000, b"x",
)  # fmt: skip
GRID = {
    "name": "clothes", "title": "Clothes", "baseline": "Original", "seeds": 2, "sizes": [3, 0], "base": {"model": "tiny", "epochs": 2, "lr": 0.01},
    "regularizers": {"L2": "l2", "L2-SP": "l2_sp(alpha=0.1)"}, "tasks": {"clothes": {"data": "clothes"}, "shoes": "shoes"},
    "methods": {"Original": "{regularizer}", "Dropout": {"method": "{regularizer}+dropout(p={p})", "grid": {"p": [0.1, 0.2]}}},
    "selection": {"seeds": 2, "equal_budgets": False}, "blocks": [{"sizes": [3]}, {"sizes": [0], "methods": ["Original"], "seeds": [7, 8]}],
}  # fmt: skip
ORACLE = {"name": "mlp_oracle", "oracle": {"seeds": 10, "rates": [0.01, 0.1], "noises": [0.1]}}


@dataclass
class Tally:
    """How inputs ended.

    Attributes:
        lines: Whether a refusal may list what is wrong, a line each.
        counts: {outcome: inputs}; "read" and "refused" are right, any other is a fault.
        examples: {outcome: one input}, of faults.
    """

    lines: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, str]:
        """Outcomes that must not be, each with an input."""
        return self.examples

    def add(self, shown: str, act: Callable[[], Any]) -> None:
        """Read one input and note how it ended."""
        began = time.process_time()
        try:
            act()
            outcome = "read"
        except UserError as error:
            text = str(error)
            outcome = "refused" if self.lines or ("\n" not in text and len(text) <= LONGEST) else "refused in more than a sentence"
        except Exception as error:  # noqa: BLE001  Whatever else is raised is what is looked for.
            outcome = type(error).__name__
        if time.process_time() - began > SLOW:
            outcome = f"slow: {outcome}"
        self.counts[outcome] += 1
        if outcome not in ("read", "refused"):
            self.examples.setdefault(outcome, shown)


def mutated(text: str, draw: random.Random) -> str:
    """A text with one to four of its places changed."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        start, end = sorted(draw.randint(0, len(text)) for _ in range(2))
        part = text[start : min(end, start + 12)]
        change = draw.randrange(5)
        if change == 0:
            text = text[:start] + text[start + len(part) :]
        elif change == 1:
            text = text[:start] + draw.choice(PIECES) + text[start:]
        elif change == 2:
            text = text[:start] + draw.choice(PIECES) + text[start + len(part) :]
        elif change == 3:
            text = text[:start] + part * draw.choice((2, 5, 200)) + text[start:]
        else:
            text = text[:start] + part[::-1] + text[start + len(part) :]
    return text


def fuzz_recipes(count: int, seed: int = 0) -> Tally:
    """Read so many mutated recipes, directions and augmentations."""
    draw, tally = random.Random(seed), Tally()
    kinds: tuple[tuple[Callable[[str], Any], tuple[str, ...]], ...] = (
        (parse, RECIPES), (parse, RECIPES), (parse_direction, DIRECTIONS), (parse_augment, AUGMENTS),
    )  # fmt: skip
    for read, texts in kinds:
        read(texts[0])  # What is imported at the first call is not to be timed.
    for number in range(count):
        read, texts = kinds[number % len(kinds)]
        text = mutated(draw.choice(texts), draw)
        tally.add(repr(text)[:200], lambda read=read, text=text: read(text))  # type: ignore[misc]
    return tally


def fuzz_grids(count: int, folder: Path, seed: int = 0) -> Tally:
    """Read so many mutated files of studies, their text or their values changed."""
    draw, tally, path = random.Random(seed), Tally(), folder / "grid.yaml"
    for number in range(count):
        raw = ORACLE if number % 10 == 0 else GRID
        if number % 2:
            text = mutated(yaml.safe_dump(raw, sort_keys=False), draw)
        else:
            text = yaml.dump(_changed(raw, draw), sort_keys=False, allow_unicode=draw.random() < 0.5)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        tally.add(repr(text)[:2000], lambda: _read_grid(path))
    return tally


def _changed(raw: Any, draw: random.Random) -> Any:
    """A copy with one or two values, at any depth, replaced."""
    raw = copy.deepcopy(raw)
    for _ in range(draw.randint(1, 2)):
        place, key = raw, draw.choice(list(raw))
        while isinstance(place[key], dict | list) and place[key] and draw.random() < 0.7:
            place = place[key]
            key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
        place[key] = copy.deepcopy(draw.choice(VALUES))
    return raw


def _read_grid(path: Path) -> None:
    if load_oracle(path) is None:
        check_recipes(load(path))
