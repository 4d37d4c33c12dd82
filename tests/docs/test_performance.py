"""The page on performance is what its figures give."""

import json

from benchmarks import page
from benchmarks.__main__ import FIGURES, PAGE


def test_the_page_is_written_from_the_figures() -> None:
    assert page.text(json.loads(FIGURES.read_text("utf-8"))) == PAGE.read_text("utf-8")
