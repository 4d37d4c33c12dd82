"""JSON as it is written: lists of numbers stand on one line, and whatever is read back is what was written."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rekindle.files import write_json

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.just("[\n  1,\n  2\n]"),
    lambda inner: st.lists(inner) | st.lists(NUMBERS) | st.dictionaries(st.text(), inner),
)


@given(value=VALUES)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value


def test_a_matrix_has_a_line_a_row(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"confusion": [[1, 0], [2, 30]], "names": ["a", "b"], "none": [], "shares": [0.5, -1e-9]})
    text = (tmp_path / "value.json").read_text("utf-8")
    assert "    [1, 0],\n    [2, 30]\n" in text and '"shares": [0.5, -1e-09]' in text and '"names": [\n    "a",' in text
