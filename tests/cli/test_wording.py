"""Counts come with their noun in the right number."""

import pytest

from rekindle.errors import number_of


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2, "class", "2 classes"),
        (1, "class", "1 class"),
        (3, "near duplicate", "3 near duplicates"),
    ],
)
def test_a_count_and_its_noun(count: int, noun: str, words: str) -> None:
    assert number_of(count, noun) == words
