"""What the documentation shows: its pages, their Python blocks, and the commands in their blocks and sentences."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "methods")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def title(page: Path) -> str:
    """A page's path from the root, which names its tests."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language; "" has none."""
    return [text for name, text in FENCE.findall(page.read_text("utf-8")) if name == language]


def commands(page: Path) -> list[str]:
    """Every `rekindle ...` that a page shows whole: lines of blocks, and code marks in sentences."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    inside = [text for name, text in FENCE.findall(text) if name in ("", "console")]
    lines = re.findall(r"^(?:\$ )?(rekindle .+)$", "\n".join(inside), re.MULTILINE)
    lines += re.findall(r"`(rekindle [^`\n]+)`", FENCE.sub("", text))
    found = (re.split(r"\s+#|  \(", line)[0].strip() for line in lines)
    return list(dict.fromkeys(line for line in found if "…" not in line))
