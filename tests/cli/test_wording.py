"""Counts come with their noun and verb in the right number, in every sentence of the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekindle.errors import UserError, agree, alternatives, first_line, number_of

SOURCE = Path(__file__).resolve().parents[2] / "src/rekindle"
# What sentences count, but for units of measure, which stand behind numbers that are never one.
THINGS = (
    "animations|batches|candidates|cells|channels|classes|columns|copies|cores|devices|duplicates|epochs|features|files|folders|"
    "folds|groups|images|jobs|labels|layers|letters|lines|logits|members|methods|outliers|pairs|parameters|periods|photographs|pictures|"
    "problems|regressions|rows|runs|samples|seeds|settings|stages|steps|tasks|threads|times|values|words"
)
FIXED = re.compile(rf"^ (?:[a-z-]+ )?(?:{THINGS})\b")
VERB = re.compile(r"^ (?:of [a-z' ]+ )?(?:are|were|have|do)\b")
# In the right number already, a constant above one, or no count at all but a text.
TOLD = re.compile(r"^(?:number_of|agree|alternatives|shown|some|split_title|counted)\(|^(?:len\()?[A-Z_]+\)?$|__name__|\.(?:model|name)$")


def fixed_plurals(path: Path) -> Iterator[str]:
    """Places of an f-string where a count stands before a plural that stays one whatever the count."""
    for text in (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.JoinedStr)):
        for value, words in zip(text.values, text.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(words, ast.Constant)) or value.format_spec:
                continue
            count, after = ast.unparse(value.value), str(words.value)
            if not TOLD.search(count) and (FIXED.search(after) or (count.startswith(("len(", "sum(", "int(")) and VERB.search(after))):
                yield f"{path.relative_to(SOURCE)}:{value.lineno}: {{{count}}}{after[:40]}"


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "near duplicate", "3 near duplicates"),
        (2, "batch", "2 batches"),
        (2, "entry", "2 entries"),
        (2, "day", "2 days"),
    ],
)
def test_a_count_and_its_noun(count: int, noun: str, words: str) -> None:
    assert number_of(count, noun) == words


@given(st.integers(0, 3), st.sampled_from([("is", "are"), ("has", "have"), ("does", "do"), ("looks", "look"), ("stays", "stay")]))
def test_a_verb_agrees_with_its_count(count: int, verb: tuple[str, str]) -> None:
    one, many = verb
    assert number_of(count, "picture", one) == (f"1 picture {one}" if count == 1 else f"{count} pictures {many}")
    assert agree(count, one) == (one if count == 1 else many)


@given(st.lists(st.integers(1, 9), min_size=1, unique=True).map(sorted))
def test_alternatives_end_in_the_noun_of_the_last(counts: list[int]) -> None:
    words = alternatives(counts, "seed")
    assert words.count(" or ") == len(counts) - 1 and words.endswith(number_of(counts[-1], "seed"))


def test_no_sentence_has_a_plural_that_stays_one_whatever_the_count() -> None:
    assert [place for path in sorted(SOURCE.rglob("*.py")) for place in fixed_plurals(path)] == []


def test_no_page_has_a_plural_that_stays_one_whatever_the_count() -> None:
    for path in SOURCE.rglob("*.j2"):
        found = re.findall(rf"(?!{{{{[^}}]*format\()(?:{{{{[^}}]+}}}} (?:[a-z-]+ )?(?:{THINGS}|are|were|have)\b)", path.read_text("utf-8"))
        assert [text for text in found if "split }}" not in text and "number_of" not in text] == [], path.name


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (AssertionError(), "AssertionError"), (ValueError(" \n "), "ValueError"), (RuntimeError("\nout of memory. Tried 2 GiB\nat 0x7f"), "out of memory"),
        (UserError("x/ has 2 problems; mend it:\na\nb"), "x/ has 2 problems; mend it"), (UserError("a. b" * 100), "a. b" * 100),
    ],
)  # fmt: skip
def test_the_first_line_of_an_error_is_one_whatever_it_says(error: Exception, line: str) -> None:
    assert first_line(error) == line
