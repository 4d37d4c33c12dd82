"""The document's method, as one new file, is found and stands the contract suite."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rekindle import registry
from rekindle.methods import penalties
from rekindle.methods._catalog import card, library
from rekindle.testing import checks_of, run_check
from tests.contract import test_contract as contract

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your_own_method.md"


@pytest.fixture
def _one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the page's code where a method's file goes; a second folder of the package stands for the tree itself."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "early_strong.py").write_text(code)
    monkeypatch.setattr(penalties, "__path__", [*penalties.__path__, str(tmp_path)])
    registry.methods.cache_clear()
    yield
    registry.methods.cache_clear()
    sys.modules.pop("rekindle.methods.penalties.early_strong", None)


@pytest.mark.usefixtures("_one_new_file")
def test_it_is_found_and_passes() -> None:
    name = "early_strong"
    assert registry.unparse(registry.parse(f"l2_sp+{name}(alpha=0.1)")) == f"l2_sp+{name}(alpha=0.1)"
    listed = library()[name]
    assert (listed.family, listed.summary) == ("penalties", "Pull the new head towards zero, ever less.")
    shown = card(name, library())
    assert (
        shown.startswith(f"# {name}\n\nPull the new head towards zero")
        and "- `alpha=0.01` (a finite number of at least 0): Strength in the first epoch." in shown
    )
    kind = registry.methods()[name]
    assert {run_check(check, kind).outcome for check in checks_of(kind)} == {"ok"}
    contract.test_bf16_and_compile(name)
