"""HTML pages from templates of this package: everything that is put in is escaped, and a name without a value is an error."""

from collections.abc import Callable
from typing import Any

from rekindle.errors import number_of

Filters = dict[str, Callable[..., Any]]


def render(name: str, content: dict[str, Any], filters: Filters | None = None) -> str:
    """Fill in a template.

    Args:
        name: Path of a file in the package, such as "report/run.html.j2".
        content: What the template shows, by name.
        filters: The template's own, by name, beside `number_of`.

    Raises:
        jinja2.UndefinedError: If the template uses a name that `content` lacks.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rekindle", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number_of": number_of, **(filters or {})}
    return environment.get_template(name).render(content)
