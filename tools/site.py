"""What the documentation site adds to plain Markdown: formulas, pages that lie outside docs/, and links between cards. mkdocs.yml names it as a hook."""

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CODE_OF_CONDUCT.md": "code_of_conduct.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}  # fmt: skip
FORMULA = r"(?s)\$\$(.+?)\$\$|\$([^$]+?)\$"
TABLE = "<!-- the table of methods -->"


class Formula(InlineProcessor):
    """`$...$` or `$$...$$` as MathML, which browsers draw without a script."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:
        from latex2mathml.converter import convert

        text = " ".join((m[1] or m[2]).split())
        found = fromstring(convert(text, display="block" if m[1] else "inline"))
        for part in found.iter():
            part.tag = part.tag.rpartition("}")[2]
        found.set("xmlns", "http://www.w3.org/1998/Math/MathML")
        return found, m.start(0), m.end(0)


class Formulas(Extension):
    """Markdown's part: before backslashes are read as escapes, after code."""

    def extendMarkdown(self, md: Markdown) -> None:
        md.inlinePatterns.register(Formula(FORMULA), "formula", 185)


def on_config(config: Any) -> Any:
    """Let every page hold formulas."""
    config.markdown_extensions.append(Formulas())
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie in the root, as GitHub and PyPI want them."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=from_root((ROOT / name).read_text("utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Links as they are on the site."""
    path = page.file.src_uri
    if path.startswith("methods/"):
        markdown = link_card(markdown, page.file.name, "", "../")
    if path == "methods.md":
        markdown = markdown.replace(TABLE, table_of_methods(config.nav))
    return to_root(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """No option is broken at its hyphens, and so no "--" stands alone at the end of a line."""
    return re.sub(r"<code>.*?</code>", lambda code: re.sub(r"(?<![\w-])--[a-z][\w-]*", r'<span class="option">\g<0></span>', code[0]), html)


def from_root(markdown: str) -> str:
    """Links of a page in the root, as from a page in docs/; what is no page of the site stays as text."""
    markdown = re.sub(r"\]\(docs/", "](", markdown)
    markdown = re.sub(r"\]\(((?!http)[\w/.]+)(#[\w-]*)?\)", lambda m: f"]({PAGES.get(m[1], m[1])}{m[2] or ''})", markdown)
    return re.sub(r"\[([^\]]+)\]\(((?:src|studies|tests|benchmarks|tools)(?:/[^)]*)?|LICENSE)\)", r"\1", markdown)


def to_root(markdown: str) -> str:
    """Links of a page in docs/ to one in the root."""
    return re.sub(
        r"\]\(((?:\.\./)+)([A-Z_]+\.md)",
        lambda m: f"]({m[1].removeprefix('../')}{PAGES[m[2]]}" if m[2] in PAGES and m[2] != "README.md" else m[0],
        markdown,
    )


def cards() -> dict[str, Path]:
    """The card of each method, by name."""
    return {path.stem: path for path in sorted((ROOT / "src/rekindle/methods/cards").glob("*.md"))}


def link_card(markdown: str, name: str, cards_at: str, docs_at: str) -> str:
    """The card `name`, or a part of it, with links to other cards and to results, which lie there from the page it is on."""
    known = cards()

    def linked(match: re.Match[str]) -> str:
        span = match[1]
        if span.startswith("docs/results/"):
            return f"[{span.removeprefix('docs/results/').replace('_', ' ')}]({docs_at}{span.removeprefix('docs/')}/README.md)"
        return f"[`{span}`]({cards_at}{span}.md)" if span in known and span != name else match[0]

    return re.sub(r"(?<!\[)`([\w/]+)`", linked, markdown)


def table_of_methods(nav: Any) -> str:
    """A table for each family in the navigation's section "Methods": name, and the first sentences of its card."""
    [families] = [section["Methods"] for section in nav if "Methods" in section]
    parts = []
    for family in families:
        for title, pages in family.items():
            if isinstance(pages, list):
                rows = [row_of(name) for page in pages for name in page]
                parts.append(f"## {title}\n\n| method | verdict |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts)


def row_of(name: str) -> str:
    """One method's row."""
    text = cards()[name].read_text("utf-8")
    what = text.partition("\n")[0].partition(": ")[2]
    verdict = " ".join(text.partition("**In short.** ")[2].partition("\n\n")[0].split())
    return f"| [`{name}`](methods/{name}.md)<br>{what} | {link_card(verdict, name, 'methods/', '')} |"
