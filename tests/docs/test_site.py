"""The documentation site, without building it: each page has its place, each link a target, and what the hook adds is right. `make docs` builds it strictly."""

import fnmatch
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown.extensions.toc import slugify

from rekindle.cli import parser
from rekindle.methods._catalog import library
from tests.docs.pages import DOCS, FENCE, ROOT, commands
from tools import site

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
IN_DOCS = sorted({*DOCS.rglob("*.md"), *(DOCS / "methods").glob("*.md")})  # The cards lie behind a link, which rglob may not follow.
WRITTEN = [*(ROOT / name for name in site.PAGES), *IN_DOCS]
PUBLIC = [
    "rekindle.data",
    "rekindle.models",
    "rekindle.tuner",
    "rekindle.method",
    "rekindle.spec",
    "rekindle.analysis",
    "rekindle.integrations",
    "rekindle.testing",
]


def leaves(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    for part in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from leaves(part)


IN_NAV = list(leaves(CONFIG["nav"]))


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as Python-Markdown makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings}


def test_every_page_has_its_place() -> None:
    """In the navigation once, or left out by name; GitHub's README of a folder counts as that folder's page."""
    left_out = [pattern.lstrip("/") for pattern in CONFIG["not_in_nav"].split()]
    there = {path.relative_to(DOCS).as_posix() for path in IN_DOCS} | set(site.PAGES.values())
    assert len(set(IN_NAV)) == len(IN_NAV)
    assert set(IN_NAV) <= there
    assert {page for page in there - set(IN_NAV) if not any(fnmatch.fnmatch(page, pattern) for pattern in left_out)} == set()
    assert all(any(fnmatch.fnmatch(page, pattern) for page in there) for pattern in left_out)


def test_what_the_configuration_names_is_there() -> None:
    assert CONFIG["strict"] is True and CONFIG["theme"]["font"] is False
    for name in (*CONFIG["extra_css"], *CONFIG["extra"]["polyfills"]):
        assert (DOCS / name).is_file()
    assert all((ROOT / name).is_file() for name in CONFIG["hooks"])
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]["docs"]
    assert {re.split(r"[\[<>=]", line)[0] for line in wanted} == {"latex2mathml", "mkdocs", "mkdocs-material", "mkdocstrings", "ruff"}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_nothing_is_fetched_by_a_reader(page: Path) -> None:
    """Pictures lie beside the pages, so that the site is whole offline."""
    assert not re.search(r"!\[[^\]]*\]\(http|<(script|iframe|img)\b", without_code(page.read_text("utf-8")))


def test_every_method_is_in_the_family_of_its_folder() -> None:
    [families] = [part["Methods"] for part in CONFIG["nav"] if "Methods" in part]
    told = {
        name: title for family in families for title, pages in family.items() if isinstance(pages, list) for page in pages for name in page
    }
    assert set(told) == set(library())
    for family in {entry.family for entry in library().values()}:
        assert len({told[name] for name, entry in library().items() if entry.family == family}) == 1
    table = site.table_of_methods(CONFIG["nav"])
    assert all(f"[`{name}`](methods/{name}.md)" in table for name in told)
    assert table.count("Our result: ") == len(told)


def test_every_card_says_when_to_use_it_and_when_not() -> None:
    for path in site.cards().values():
        words = " ".join(path.read_text("utf-8").split("\n\n")[1].split())
        assert re.fullmatch(r"\*\*In short\.\*\* Use when .+\. Avoid when .+\. Our result: .+\.", words), path.name
        assert "not measured here" in words or "docs/results/" in words or re.search(r"\(below\)|every run|its accuracy", words), path.name


def test_every_command_has_its_line() -> None:
    groups = [action for action in parser()._actions if hasattr(action, "choices") and isinstance(action.choices, dict)]
    have = {command.split()[1] for command in commands(DOCS / "commands.md")}
    assert set(groups[0].choices) <= have


def test_every_public_room_has_a_page() -> None:
    for room in PUBLIC:
        assert room in (DOCS / f"api/{room.partition('.')[2]}.md").read_text("utf-8")


def test_links_are_those_of_the_site() -> None:
    assert site.from_root("[a](docs/data.md#groups), [b](SECURITY.md), [c](studies/x.yaml)") == "[a](data.md#groups), [b](security.md), c"
    assert site.to_root("[a](../SECURITY.md#reporting) [b](../../CONTRIBUTING.md)") == "[a](security.md#reporting) [b](../contributing.md)"
    assert site.link_card("`l2`, `rifle`, `docs/results/small_study`", "rifle", "", "../") == (
        "[`l2`](l2.md), `rifle`, [small study](../results/small_study/README.md)"
    )


def test_no_option_is_broken() -> None:
    assert site.on_page_content("<p>a--b <code>fit --head-lr x10</code></p>") == (
        '<p>a--b <code>fit <span class="option">--head-lr</span> x10</code></p>'
    )


def test_a_formula_is_no_code_and_no_money() -> None:
    pattern = site.FORMULA
    assert [match[1] or match[2] for match in re.finditer(pattern, "of $a_b$ and $$c$$")] == ["a_b", "c"]
    for path in WRITTEN:
        assert without_code(path.read_text("utf-8")).count("$") % 2 == 0, path.name


def test_notebooks_are_linked() -> None:
    for path in (DOCS / "notebooks").glob("*.ipynb"):
        assert json.loads(path.read_text("utf-8"))["nbformat"] == 4
        assert f"notebooks/{path.name}" in (DOCS / "start.md").read_text("utf-8")
