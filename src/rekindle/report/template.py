"""HTML pages from templates of this package: everything that is put in is escaped, and a name without a value is an error."""

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rekindle.errors import agree, number_of
from rekindle.report.colors import palette

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

Filters = dict[str, Callable[..., Any]]


def render(name: str, content: dict[str, Any], filters: Filters | None = None) -> str:
    """Fill in a template.

    Args:
        name: Path of a file in the package, such as "report/run.html.j2".
        content: What the template shows, by name.
        filters: The template's own, by name, beside `number_of`, `agree` and `whole_options`.

    Returns:
        HTML in which all values are escaped.

    Raises:
        jinja2.UndefinedError: If the template uses a name that `content` lacks.
    """
    environment = _environment(name)
    environment.filters |= filters or {}
    return environment.get_template(name).render(content)


def whole_options(text: str) -> "Markup":
    """A command, or a sentence about one, as HTML in which no option is broken at its hyphens: "--per-class" stays in one line.

    Returns:
        Marked-up text, escaped.
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"--[a-z][a-z-]*", r'<span class="option">\g<0></span>', str(escape(text))))


@functools.cache
def _environment(name: str) -> "jinja2.Environment":
    """What a template is filled in with, made once for each: it keeps the compiled template, whose making takes longer than its filling in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rekindle", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number_of": number_of, "agree": agree, "whole_options": whole_options}
    environment.globals["palette"] = palette()
    return environment
